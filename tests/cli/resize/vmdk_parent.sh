# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# New space of a child reads as zeros, whatever its longer parent has there; its children stay.
platter create -q -f vmdk base.vmdk 20M
qemu-io -f vmdk -c 'write -P 1 0 20M' base.vmdk >/dev/null
for options in zeroed_grain=off zeroed_grain=on subformat=twoGbMaxExtentSparse; do
    echo $options
    platter create -q -f vmdk -o $options -b base.vmdk -F vmdk mid.vmdk 10000k
    platter create -q -f vmdk -b mid.vmdk -F vmdk top.vmdk
    platter resize mid.vmdk 15M
    platter resize mid.vmdk 30M
    qemu-io -r -f vmdk -c 'read -P 1 0 10000k' -c 'read -P 0 10000k 20720k' mid.vmdk | grep -c ^read
    qemu-io -r -f vmdk -c 'read -P 1 0 10000k' top.vmdk | grep -c ^read
    platter check -q mid.vmdk
    du -k mid.vmdk | awk '{ print ($1 < 1000 ? "small" : "large") }'
done
