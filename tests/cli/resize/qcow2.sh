# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Smaller and larger, of all shapes: what was cut off never shows again, whatever is below; qemu-img
# agrees, and says the same.
zeros_behind() { # BYTE LENGTH SIZE: a disk to compare with
    python3 -c 'import sys
byte, length, size = map(int, sys.argv[1:])
sys.stdout.buffer.write(bytes([byte]) * length + bytes(size - length))' "$@" >right.raw
}
for options in cluster_size=64k cluster_size=512,refcount_bits=64 cluster_size=2M compat=0.10 extended_l2=on \
        refcount_bits=1,cluster_size=4k; do
    echo "$options"
    platter create -q -f qcow2 -o $options a.qcow2 5M
    qemu-io -f qcow2 -c 'write -P 7 0 5M' a.qcow2 >/dev/null
    cp a.qcow2 b.qcow2
    kinds='off metadata'
    [ $options != cluster_size=64k ] || kinds='off metadata falloc full'
    for pre in $kinds; do
        cp b.qcow2 a.qcow2
        platter resize -q --shrink a.qcow2 1000448
        qemu-img check -q a.qcow2
        platter resize -q --preallocation=$pre a.qcow2 12M
        qemu-img check -q a.qcow2
        zeros_behind 7 1000448 12582912
        qemu-img compare -q -F raw a.qcow2 right.raw
        platter compare -q -F raw a.qcow2 right.raw
        platter resize -q --shrink a.qcow2 512
        qemu-img check -q a.qcow2
    done
    repeated 9M x | tr -d '\n' | head -c 4718592 >base.raw
    platter create -q -f qcow2 -o $options -b base.raw -F raw a.qcow2 1000448
    platter resize -q a.qcow2 1100k
    platter resize -q a.qcow2 8M
    qemu-img check -q a.qcow2
    zeros_behind 120 1000448 8388608
    qemu-img compare -q -F raw a.qcow2 right.raw
    platter compare -q -F raw a.qcow2 right.raw
done
rm a.qcow2 b.qcow2
qemu-img create -q -f qcow2 a.qcow2 1M
same resize a.qcow2 2M
same resize -f qcow2 a.qcow2 +1M
same resize a.qcow2 1000001
same resize a.qcow2 3145729
same resize a.qcow2 1M
same resize --shrink --preallocation=full a.qcow2 1M
same resize --shrink a.qcow2 1M
same resize a.qcow2 1E
# Snapshots keep their size; of version 2 they have none.
qemu-io -f qcow2 -c 'write -P 5 0 1M' a.qcow2 >/dev/null
qemu-img snapshot -c full a.qcow2
same resize --shrink a.qcow2 128k
same resize a.qcow2 3M
qemu-img check -q a.qcow2
qemu-img snapshot -a full a.qcow2
qemu-io -f qcow2 -c 'read -q -P 5 0 1M' a.qcow2
platter info a.qcow2 | grep 'virtual size'
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
qemu-img snapshot -c one v2.qcow2
same resize v2.qcow2 2M
# A data file is cut and grows with the disk.
for raw in off on; do
    qemu-img create -q -f qcow2 -o data_file=d.bin,data_file_raw=$raw d.qcow2 1M
    qemu-io -f qcow2 -c 'write -P 5 0 1M' d.qcow2 >/dev/null
    platter resize -q --shrink d.qcow2 300k
    platter resize -q d.qcow2 2M
    qemu-img check -q d.qcow2
    stat -c '%n %s' d.bin
    qemu-io -f qcow2 -c 'read -q -P 5 0 300k' -c 'read -q -P 0 300k 1748k' d.qcow2
    [ $raw = off ] || platter compare -F raw d.qcow2 d.bin
    rm d.*
done
