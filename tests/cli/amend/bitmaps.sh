# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Version 2 has no dirty bitmaps: they go only where that is asked for, and leave nothing behind.
platter create -q -f qcow2 a.qcow2 64M
platter bitmap --add a.qcow2 one
platter bitmap --add -g 4k a.qcow2 two
qemu-io -f qcow2 -c 'write -P 7 1M 1M' -c 'write -z 5M 1M' a.qcow2 >/dev/null
platter convert -O raw a.qcow2 right.raw
sha256sum a.qcow2 >sum
code_of platter amend -o compat=0.10 a.qcow2
sha256sum --quiet -c sum
platter amend --force -o compat=0.10 a.qcow2
qemu-img check -q a.qcow2
platter check -q a.qcow2
qemu-img compare -q -F raw a.qcow2 right.raw
platter info a.qcow2 | grep -E 'compat:|bitmaps'
platter amend -o compat=1.1 a.qcow2
platter bitmap list a.qcow2
# They stay where nothing is in their way.
platter bitmap --add a.qcow2 one
platter amend --force -o refcount_bits=64,lazy_refcounts=on a.qcow2
qemu-img check -q a.qcow2
qemu-img info a.qcow2 | grep 'name: one'
