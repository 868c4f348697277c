# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Version, width of counts, features: the disk and its snapshot stay what they are, with a backing file
# below and without; qemu-img agrees.
both() {
    qemu-img check -q a.qcow2
    qemu-img compare -q -F raw a.qcow2 right.raw
    platter compare -q -F raw a.qcow2 right.raw
    qemu-img convert -l one -O raw a.qcow2 one.raw
    cmp one.raw right_one.raw
    qemu-img info a.qcow2 | grep -E 'compat:|lazy|refcount bits' | tr -s ' \n' ' '
    echo
}
qemu-img create -q -f raw base.raw 3M
qemu-io -f raw -c 'write -P 3 0 3M' base.raw >/dev/null
for options in cluster_size=64k cluster_size=512 cluster_size=4k,refcount_bits=64; do
    for below in '' base.raw; do
        echo "$options $below"
        qemu-img create -q -f qcow2 -o $options ${below:+-b $below -F raw} a.qcow2 4M
        qemu-io -f qcow2 -c 'write -P 7 0 1M' -c 'write -z 512k 1M' -c 'write -zu 2M 512k' \
            -c 'write -P 9 2000000 1000' a.qcow2 >/dev/null
        qemu-img snapshot -c one a.qcow2
        qemu-io -f qcow2 -c 'write -P 8 700k 1M' -c 'write -z 100k 200k' -c 'write -zu 3M 512k' a.qcow2 >/dev/null
        qemu-img convert -O raw a.qcow2 right.raw
        qemu-img convert -l one -O raw a.qcow2 right_one.raw
        for change in refcount_bits=64 refcount_bits=16 compat=0.10 compat=1.1,refcount_bits=2,lazy_refcounts=on \
                compat=v2,refcount_bits=16,lazy_refcounts=off compat=v3; do
            platter amend -o $change a.qcow2
            both
        done
    done
done
code_of platter amend -o refcount_bits=1 a.qcow2
both
