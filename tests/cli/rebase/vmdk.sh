# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The disk stays the same, whatever is put below it; the children of the image stay its children.
platter create -q -f vmdk base.vmdk 5M
qemu-io -f vmdk -c 'write -P 1 0 5M' base.vmdk >/dev/null
platter create -q -f vmdk -o subformat=monolithicFlat other.vmdk 4M
qemu-io -f vmdk -c 'write -P 9 0 1M' -c 'write -P 1 1M 2M' other.vmdk >/dev/null
for options in subformat=monolithicSparse zeroed_grain=on subformat=twoGbMaxExtentSparse; do
    echo "$options"
    platter create -q -f vmdk -o $options -b base.vmdk -F vmdk mid.vmdk 6M
    qemu-io -f vmdk -c 'write -P 2 64k 200k' -c 'write -z 2M 64k' mid.vmdk >/dev/null
    platter create -q -f vmdk -b mid.vmdk -F vmdk top.vmdk
    platter convert -O raw top.vmdk right.raw
    for below in other.vmdk base.vmdk '' other.vmdk; do
        platter rebase -b "$below" mid.vmdk
        platter info mid.vmdk | grep 'backing file:' || echo no backing file
        platter compare -F raw mid.vmdk right.raw
        qemu-img compare -q -F raw mid.vmdk right.raw
        platter compare -F raw top.vmdk right.raw
        # What is the same below is not copied: most of [1M, 3M), the first time.
        platter map mid.vmdk | count -E 'other|base'
    done
    platter check -q mid.vmdk
done
