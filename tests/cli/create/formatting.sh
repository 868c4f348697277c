# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The line that tells what is made.
same create -f raw a 1M
same create -f raw -o preallocation=full a 1M
same create a 1M
same create -f qcow2 a 10M
same create -f qcow2 a -o cluster_size=4k 10M
same create -f qcow2 -o cluster_size=1M -o lazy_refcounts=on a 10M
same create -f qcow2 -o compat=0.10 a 10M
same create -f qcow2 -o compat=v3 a 10M
same create -f qcow2 -o extended_l2=on,cluster_size=128k a 10M
same create -f qcow2 -o compression_type=zstd a 10M
same create -f qcow2 -o refcount_bits=1 a 10M
for p in off metadata falloc full; do
    same create -f qcow2 -o preallocation=$p a 10M
done
same create -f qcow2 -o size=5G a
same create -q -f qcow2 a 1G
same create -f vmdk -o subformat=streamOptimized a 1G
same create -f vmdk -o subformat=monolithicSparse a 1G
for kind in monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    same create -f vmdk -o subformat=$kind,adapter_type=lsilogic a 3G
    same create -f vmdk -o subformat=$kind,hwversion=7,toolsversion=3 a 0
done
platter create -q -f vmdk base.vmdk 1M
same create -f vmdk -o subformat=twoGbMaxExtentSparse,zeroed_grain=on,compat6=on -b base.vmdk -F vmdk a
