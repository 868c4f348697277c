# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A new file of an image is nobody's to read who could not read the image.
umask 022
platter create -q -f vmdk -o subformat=twoGbMaxExtentFlat a.vmdk 1M
chmod 600 a.vmdk
chmod 640 a-f001.vmdk
platter resize -q a.vmdk 5G
stat -c '%n %a' a*
