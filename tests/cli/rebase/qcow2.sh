# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The disk stays the same, whatever is put below it, with snapshots or without; qemu-img agrees.
platter create -q -f qcow2 base.qcow2 5M
qemu-io -f qcow2 -c 'write -P 1 0 5M' base.qcow2 >/dev/null
platter create -q -f raw other.raw 4M
qemu-io -f raw -c 'write -P 9 0 1M' -c 'write -P 1 1M 2M' other.raw >/dev/null
for options in cluster_size=64k cluster_size=512 compat=0.10 extended_l2=on lazy_refcounts=on; do
    echo "$options"
    platter create -q -f qcow2 -o $options -b base.qcow2 -F qcow2 mid.qcow2 6M
    qemu-io -f qcow2 -c 'write -P 2 64k 200k' -c 'write -z 2M 64k' mid.qcow2 >/dev/null
    qemu-img snapshot -c one mid.qcow2
    qemu-io -f qcow2 -c 'write -P 3 100k 100k' mid.qcow2 >/dev/null
    platter convert -O raw mid.qcow2 right.raw
    for below in other.raw base.qcow2 '' other.raw; do
        format=${below##*.}
        platter rebase -q -b "$below" ${below:+-F $format} mid.qcow2
        qemu-img check -q mid.qcow2
        platter info mid.qcow2 | grep -e 'backing file' || echo no backing file
        qemu-img info mid.qcow2 | grep -e 'backing file' || echo no backing file
        platter compare -F raw mid.qcow2 right.raw
        qemu-img compare -q -F raw mid.qcow2 right.raw
        platter map mid.qcow2 | count -E 'other|base'
    done
done
