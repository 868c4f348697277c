# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# More pieces than a shell lets a program have files open.
ulimit -Sn 100
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse disk.vmdk 240G
left_here | wc -l
left_here | tail -2
platter map --output=json disk.vmdk
# And not many more than it can have at all.
(
    ulimit -n 300
    platter create -q -f vmdk -o subformat=twoGbMaxExtentFlat flat.vmdk 240G
    platter info flat.vmdk | grep 'virtual size: 240'
)
# A name that is not ASCII: readers on Windows have to be told.
platter create -q -f vmdk -o subformat=monolithicFlat 'größe.vmdk' 1M
sed '/^CID/d' 'größe.vmdk' | head -8
platter info 'größe.vmdk' | grep 'virtual size'
qemu-img check 'größe.vmdk'
