# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The bytes that dd would copy, out of any format into any format.
data 1000448 in.raw
platter convert -c -f raw -O qcow2 in.raw in.qcow2
platter create -q -f qcow2 -b in.qcow2 -F qcow2 over.qcow2 2M
qemu-io -f qcow2 -c 'write -P 9 900k 300k' over.qcow2 >/dev/null
platter convert -O raw over.qcow2 over.raw
for part in 'bs=512' 'bs=1000 count=3' 'bs=1000 count=3 skip=2' 'bs=64k skip=3' 'bs=1M count=1 skip=1' 'bs=1 skip=77777 count=123457' \
        'count=0' 'bs=2M count=5' 'bs=300k skip=6 count=9' 'bs=64k count=99999999999'; do
    for image in in over; do
        # shellcheck disable=SC2086
        dd status=none if=$image.raw of=right $part
        platter dd $part -f qcow2 if=$image.qcow2 of=out.raw
        cmp out.raw right
        platter dd -O qcow2 $part if=$image.qcow2 of=out.qcow2
        qemu-img check -q out.qcow2
        truncate -s %512 right
        qemu-img compare -q -F raw out.qcow2 right
    done
done
platter dd -O vmdk bs=64k skip=1 count=2 if=over.qcow2 of=out.vmdk
platter info out.vmdk | grep 'virtual size'
platter dd bs=1M skip=9 if=in.qcow2 of=out.raw
stat -c %s out.raw
