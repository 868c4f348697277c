# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
cp --sparse=never a.raw b.raw
same compare -s -f raw -F raw a.raw a.raw
same compare -s a.qcow2 a.qcow2
qemu-img create -q -f qcow2 empty.qcow2 4M
qemu-img create -q -f qcow2 zero.qcow2 4M
qemu-io -c 'write -z 0 4M' zero.qcow2 >/dev/null
same compare empty.qcow2 zero.qcow2
same compare -s empty.qcow2 zero.qcow2
# (qemu-img tells another offset where one of two runs ends with the disk.)
code_of platter compare -s -f raw -F raw a.raw b.raw
