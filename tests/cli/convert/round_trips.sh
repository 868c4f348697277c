# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
# Through every format and back, with qemu-img as the judge of each.
data 3M a.raw
truncate -s 20M a.raw
data 1M tail 2
dd if=tail of=a.raw bs=1M seek=15 conv=notrunc status=none
rm tail
last=a.raw from=raw
step() {
    platter convert -f $from -O "$@" $last next.img
    qemu-img compare -q -f raw -F "$1" a.raw next.img
    echo "ok: $from to $*"
    mv next.img last.img
    last=last.img from=$1
}
step qcow2
step vmdk
step qcow2 -c
step vmdk -o subformat=streamOptimized
step qcow2 -c -o compression_type=zstd
step raw
step qcow2 -o compat=0.10,cluster_size=512
step qcow2 -o extended_l2=on
step vmdk -o subformat=monolithicSparse
step raw
cmp a.raw last.img
left_here
