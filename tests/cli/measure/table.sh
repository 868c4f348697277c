# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The numbers of qemu-img for sizes and options of all kinds, of nothing and of an image with snapshots and
# bitmaps over another.
for size in 512 1000448 1G 3T; do
    for options in cluster_size=64k cluster_size=2M,extended_l2=on refcount_bits=1,cluster_size=4k \
            refcount_bits=64,preallocation=metadata preallocation=full compat=0.10; do
        same measure --size $size -O qcow2 -o $options
    done
done
same measure --size 64M -O qcow2 -o cluster_size=512,refcount_bits=64
same measure --size 1G -O qcow2 -o data_file=x
same measure --size 1G -O qcow2 -o backing_file=base.raw
qemu-img create -q -f raw base.raw 8M
qemu-io -f raw -c 'write -P 3 0 3M' base.raw >/dev/null
qemu-img create -q -f qcow2 -b base.raw -F raw a.qcow2 8M
qemu-io -f qcow2 -c 'write -P 3 1M 4M' -c 'write -z 2M 100k' -c 'write -P 4 7000000 5000' a.qcow2 >/dev/null
qemu-img snapshot -c one a.qcow2
qemu-io -f qcow2 -c 'write -P 3 6M 300k' a.qcow2 >/dev/null
for options in cluster_size=64k cluster_size=512 cluster_size=2M,extended_l2=on preallocation=falloc compat=0.10; do
    same measure -O qcow2 -o $options a.qcow2
    same measure --output=json -O qcow2 -o $options -l one a.qcow2
done
same measure -O qcow2 -f raw base.raw
same measure -O raw a.qcow2
same measure -O qcow2 -o backing_file=base.raw,backing_fmt=raw a.qcow2
qemu-img bitmap --add a.qcow2 one
qemu-img bitmap --add -g 4k a.qcow2 two
same measure -O qcow2 a.qcow2
same measure --output=json -O qcow2 -o cluster_size=512 a.qcow2
same measure -O qcow2 -o compat=0.10 a.qcow2
