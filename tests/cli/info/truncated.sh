# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A file that starts like an image and ends too early is an error, never raw.
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-img create -q -f vmdk a.vmdk 10M
for size in 8 24 71 100 1000; do
    head -c $size a.qcow2 >cut.qcow2
    code_of platter info cut.qcow2
    head -c $size a.vmdk >cut.vmdk
    code_of platter info cut.vmdk
done
