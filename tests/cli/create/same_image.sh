# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What we make, qemu-img describes as what it makes itself; and it finds nothing wrong.
for o in '' compat=0.10 cluster_size=512 cluster_size=2M refcount_bits=1 refcount_bits=64 \
    extended_l2=on compression_type=zstd lazy_refcounts=on; do
    platter create -q -f qcow2 ${o:+-o $o} ours.qcow2 100M
    qemu-img create -q -f qcow2 ${o:+-o $o} theirs.qcow2 100M
    diff <(qemu-img info ours.qcow2 | sed 1d | grep -v 'disk size') \
        <(qemu-img info theirs.qcow2 | sed 1d | grep -v 'disk size')
    qemu-img check ours.qcow2 | head -1
    qemu-img compare -q ours.qcow2 theirs.qcow2
done
