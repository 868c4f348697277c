# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Compressed over what is there: stored, compressed, shared with a snapshot.
repeated 4M 'first' >one.raw
repeated 4M 'then something else' >two.raw
for options in cluster_size=64k cluster_size=4k,compression_type=zstd extended_l2=on; do
    rm -f a.qcow2
    qemu-img create -q -f qcow2 -o $options a.qcow2 4M
    platter convert -n -f raw -O qcow2 one.raw a.qcow2
    platter convert -n -c -f raw -O qcow2 two.raw a.qcow2
    qemu-img check -q a.qcow2
    platter convert -n -c -f raw -O qcow2 one.raw a.qcow2
    platter snapshot create a.qcow2 s
    platter convert -n -c -f raw -O qcow2 two.raw a.qcow2
    qemu-img check -q a.qcow2
    platter check -q --data a.qcow2
    qemu-img compare -q -F raw a.qcow2 two.raw
    platter compare -q -F raw a.qcow2@s one.raw
    qemu-img snapshot -d s a.qcow2
    qemu-img check -q a.qcow2
    qemu-img check a.qcow2 | grep -o '[0-9.]*% compressed'
done
