# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# All snapshots go along, with what they say of themselves, and share what they shared.
data 200000 state
qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 20M
qemu-io -c 'write -P 8 0 16M' base.qcow2 >out
qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 a.qcow2 16M
qemu-io -c 'write -P 1 0 8M' a.qcow2 >out
qemu-img snapshot -c one a.qcow2
qemu-io -c 'write -P 2 1M 64k' -c 'write -z 2M 64k' a.qcow2 >out
platter snapshot state --import=state a.qcow2 two
platter resize -q a.qcow2 24M
qemu-io -c 'write -P 3 23M 64k' a.qcow2 >out
platter snapshot -c three a.qcow2
platter snapshot -d one a.qcow2
platter snapshot -c four a.qcow2
platter resize -q --shrink a.qcow2 12M
qemu-io -c 'write -P 4 11M 64k' a.qcow2 >out
for options in cluster_size=64k cluster_size=1k extended_l2=on,cluster_size=16k,refcount_bits=8; do
    rm -f b.qcow2
    platter convert --snapshots -O qcow2 -o $options a.qcow2 b.qcow2
    qemu-img check -q b.qcow2
    platter check -q b.qcow2
    platter snapshot list --output=json a.qcow2 >theirs
    platter snapshot list --output=json b.qcow2 | cmp - theirs
    for view in '' @two @three @four; do
        platter digest a.qcow2$view | cut -d ' ' -f 1 >theirs
        platter digest b.qcow2$view | cut -d ' ' -f 1 | cmp - theirs && echo "same$view"
    done
    platter snapshot state --export=- b.qcow2 two | cmp - state
    [ "$(stat -c %s b.qcow2)" -lt 18000000 ] && echo shared
    qemu-img snapshot -a two b.qcow2
    qemu-img check -q b.qcow2
    platter compare b.qcow2 a.qcow2@two
done
code_of platter convert --snapshots -O raw a.qcow2 b.raw
code_of platter convert --snapshots -n -O qcow2 a.qcow2 b.qcow2
code_of platter convert --snapshots -O qcow2 a.qcow2 b.qcow2 c.qcow2
code_of platter convert --snapshots -O qcow2 a.qcow2@two c.qcow2
code_of platter convert --snapshots -O qcow2 a.qcow2 - >out
left_here
