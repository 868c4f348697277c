# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 64K a.raw
code_of platter digest -f raw a.raw nope.raw a.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
qemu-img convert -f raw -c -O qcow2 a.raw b.qcow2
head -c 330000 a.qcow2 >cut.qcow2
code_of platter digest cut.qcow2
