# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What qemu-img says, and what it thinks of the image after each step.
same snapshot
qemu-img create -q -f qcow2 a.qcow2 8M
same snapshot a.qcow2
same snapshot -l nope.qcow2
same snapshot -l -a s a.qcow2
same snapshot a.qcow2 b.qcow2
same snapshot -a nope a.qcow2
same snapshot -d nope a.qcow2
same snapshot -U -c x a.qcow2
qemu-img create -q -f qcow2 -o data_file=d.raw d.qcow2 1M
same snapshot -c s d.qcow2
qemu-img create -q -f qcow2 -o refcount_bits=1 n.qcow2 1M
qemu-io -c 'write 0 64k' n.qcow2 >out
cp n.qcow2 before.qcow2
same snapshot -c s n.qcow2
cp before.qcow2 n.qcow2
code_of platter snapshot -c s n.qcow2
qemu-img check -q n.qcow2
platter compare before.qcow2 n.qcow2
qemu-img snapshot -c one a.qcow2
qemu-img snapshot -c one a.qcow2
qemu-img snapshot -c 1 a.qcow2
same snapshot -l a.qcow2
cp a.qcow2 b.qcow2
same snapshot -d 2 a.qcow2
same snapshot -d one a.qcow2
platter snapshot -l a.qcow2 | cut -c1-16
