# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk in pieces that ends with zeros of no file grows by more of them.
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse a.vmdk 1M
sed -i '/^RW/a RW 100 ZERO' a.vmdk
platter resize -q a.vmdk 5G
grep ^RW a.vmdk
platter info a.vmdk | grep '^virtual size'
left_here
