# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow2 over each: with -d, as long as it cannot be emptied. A qcow2 below it cannot grow yet.
for format in raw qcow2 vmdk; do
    platter create -q -f $format base.$format 1M
    qemu-io -f $format -c 'write -P 1 0 1M' base.$format >/dev/null
    size=2M
    [ $format != qcow2 ] || size=1M
    platter create -q -f qcow2 -b base.$format -F $format top.qcow2 $size
    qemu-io -f qcow2 -c 'write -P 2 300k 700k' -c 'write -z 0 64k' top.qcow2 >/dev/null
    platter commit -d top.qcow2
    platter compare -f qcow2 -F $format top.qcow2 base.$format
    qemu-img compare -f qcow2 -F $format top.qcow2 base.$format
done
