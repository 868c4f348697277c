# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A file that starts like a qcow2 and ends too early is an error, never raw.
qemu-img create -q -f qcow2 a.qcow2 10M
for size in 4 24 71 100; do
    head -c $size a.qcow2 >cut.qcow2
    code_of platter info cut.qcow2
done
