# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Data in a file of its own, and one that is the disk as it is; qemu-img reads and checks both.
same create -f qcow2 -o data_file=d.bin a.qcow2 1M
same create -f qcow2 -o data_file=d.bin,data_file_raw=on a.qcow2 1M
same create -q -f qcow2 -o data_file_raw=on a.qcow2 1M
same create -q -f qcow2 -o data_file=d.bin,compat=0.10 a.qcow2 1M
qemu-img create -q -f qcow2 base.qcow2 1M
same create -q -f qcow2 -o data_file=d.bin,data_file_raw=on -b base.qcow2 -F qcow2 a.qcow2 1M
rm -f a.qcow2 d.bin
code_of platter create -q -f qcow2 -o data_file=sub/d.bin a.qcow2 1M
code_of platter create -q -f qcow2 -o data_file= a.qcow2 1M
code_of platter create -q -f qcow2 -o data_file=a.qcow2 a.qcow2 1M
left_here
data 1000448 some.raw
for options in data_file=d.bin data_file=d.bin,data_file_raw=on \
        data_file=d.bin,extended_l2=on,data_file_raw=on data_file=d.bin,extended_l2=on,preallocation=full \
        data_file=d.bin,cluster_size=512,preallocation=falloc,refcount_bits=1; do
    echo "$options"
    platter create -q -f qcow2 -o $options a.qcow2 1000448
    qemu-img check -q a.qcow2
    stat -c '%n %s' d.bin
    qemu-io -f qcow2 -c 'read -q -P 0 0 1000448' -c 'write -q -P 3 100k 100k' a.qcow2
    qemu-img check -q a.qcow2
    rm a.qcow2 d.bin
    platter convert -f raw -O qcow2 -o $options some.raw a.qcow2
    qemu-img check -q a.qcow2
    qemu-img compare -q -f qcow2 -F raw a.qcow2 some.raw
    platter compare -q -F raw a.qcow2 some.raw
    platter info --output=json a.qcow2 | grep data-file
    [[ $options != *raw=on* ]] || cmp d.bin some.raw
    rm a.qcow2 d.bin
done
code_of platter convert -c -f raw -O qcow2 -o data_file=d.bin some.raw a.qcow2
left_here
