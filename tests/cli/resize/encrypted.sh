# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# New space of an encrypted disk reads as zeros, also where it has its place at once; qemu-img agrees.
printf %s secret >k
opened=driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=k
for options in cluster_size=64k cluster_size=16k,extended_l2=on cluster_size=4k,data_file=d.bin; do
    for how in off metadata falloc full; do
        echo "$options $how"
        rm -f a.qcow2 d.bin
        platter create -q -f qcow2 --new-key-file k -o $options,encrypt.format=luks,encrypt.iter-time=1 \
            a.qcow2 1000448
        platter bench -q -w -c 10 -s 4096 --pattern=7 --key-file k a.qcow2 >/dev/null
        platter convert --key-file k -O raw a.qcow2 right.raw
        for size in 3M 300k 2M; do
            platter resize -q --shrink --key-file k a.qcow2 $size
            platter resize -q --preallocation=$how --key-file k a.qcow2 +1M
            truncate -s "$(numfmt --from=iec ${size^^})" right.raw
            truncate -s +1M right.raw
            platter compare -q --key-file k -F raw a.qcow2 right.raw
            qemu-img compare -q --object secret,id=k,file=k --image-opts $opened driver=raw,file.filename=right.raw
            qemu-img check -q --object secret,id=k,file=k --image-opts $opened
        done
    done
done
rm -f a.qcow2 d.bin
platter create -q -f qcow2 --new-key-file k -o compat=0.10,encrypt.format=luks,encrypt.iter-time=1 a.qcow2 1M
code_of platter resize -q --preallocation=metadata --key-file k a.qcow2 2M
platter resize -q --key-file k a.qcow2 2M
# A raw data file would not be the disk.
code_of platter create -q -f qcow2 --new-key-file k \
    -o data_file=d.bin,data_file_raw=on,encrypt.format=luks,encrypt.iter-time=1 b.qcow2 1M
left_here
# Version 2, over a backing file: what reads as zeros is stored, encrypted.
qemu-img create -q -f raw base.raw 2M
qemu-io -f raw -c 'write -P 3 0 2M' base.raw >/dev/null
platter create -q -f qcow2 --new-key-file k -o encrypt.format=luks,encrypt.iter-time=1 -b base.raw -F raw a.qcow2
qemu-io --object secret,id=k,file=k --image-opts $opened -c 'write -P 4 0 100k' -c 'write -z -u 256k 512k' >/dev/null
platter convert --key-file k -O raw a.qcow2 right.raw
platter amend -q --key-file k -o compat=0.10 a.qcow2
qemu-img compare -q --object secret,id=k,file=k --image-opts $opened driver=raw,file.filename=right.raw
qemu-img check -q --object secret,id=k,file=k --image-opts $opened
platter info a.qcow2 | grep compat
