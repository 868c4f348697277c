# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
same compare nope.raw a.raw
same compare a.raw nope.raw
same compare -f qcow2 a.raw a.raw
same compare -F nope a.raw a.raw
same compare a.raw
code_of platter compare -f raw a.raw nope.raw
head -c 700k a.qcow2 >cut.qcow2
code_of platter compare -f raw a.raw cut.qcow2
code_of platter compare -F raw cut.qcow2 a.raw
