# SPDX-License-Identifier: MIT
# shellcheck shell=bash
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k cluster_size=2M refcount_bits=1 \
    refcount_bits=64 extended_l2=on lazy_refcounts=on compression_type=zstd preallocation=metadata; do
    qemu-img create -q -f qcow2 -o $o a.qcow2 40M
    echo "$o"
    same info a.qcow2
    same info --output=json a.qcow2
done
platter info a.qcow2
platter info --output=json a.qcow2 | grep -v actual-size
