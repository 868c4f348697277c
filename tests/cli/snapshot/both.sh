# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Snapshots made by one, applied and deleted by the other; the image is clean after each step.
for options in '' -ocluster_size=512 -oextended_l2=on -ocompat=0.10 -orefcount_bits=64,cluster_size=4k; do
    rm -f a.qcow2
    qemu-img create -q -f qcow2 $options a.qcow2 4M
    for i in 1 2 3 4; do
        qemu-io -c "write -P $i $((i * 100))k 1M" -c "write -z 2M ${i}00k" -c "discard 3M ${i}0k" a.qcow2 >out
        platter digest a.qcow2 | cut -d ' ' -f 1 >sum$i
        if [ $((i % 2)) = 0 ]; then platter snapshot -c s$i a.qcow2; else qemu-img snapshot -c s$i a.qcow2; fi
        qemu-img check -q a.qcow2
        platter check -q a.qcow2
    done
    for i in 1 2 3 4; do
        platter digest a.qcow2@s$i | cut -d ' ' -f 1 | cmp - sum$i
        qemu-img convert -l s$i -O raw a.qcow2 a.raw
        platter digest -f raw a.raw | cut -d ' ' -f 1 | cmp - sum$i
        if [ $((i % 2)) = 1 ]; then platter snapshot -a s$i a.qcow2; else qemu-img snapshot -a s$i a.qcow2; fi
        qemu-img check -q a.qcow2
        platter digest a.qcow2 | cut -d ' ' -f 1 | cmp - sum$i
        qemu-io -c "write -P 9 ${i}00k 300k" a.qcow2 >out
        qemu-img check -q a.qcow2
        platter digest a.qcow2@s$i | cut -d ' ' -f 1 | cmp - sum$i
    done
    for i in 1 2 3 4; do
        if [ $((i % 2)) = 1 ]; then platter snapshot -d s$i a.qcow2; else qemu-img snapshot -d s$i a.qcow2; fi
        qemu-img check -q a.qcow2
        platter check -q a.qcow2
    done
    platter snapshot -l a.qcow2
    echo "done: $options"
done
