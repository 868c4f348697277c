# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-img snapshot -c first a.qcow2
qemu-img snapshot -c 'a second one with a name that is long' a.qcow2
same info a.qcow2
same info --output=json a.qcow2
platter info a.qcow2@first | sed -n 1,3p
platter info --view=2 a.qcow2 | sed -n 1,3p
code_of platter info a.qcow2@third
code_of platter info --view third a.qcow2
# A file of that literal name comes first.
truncate -s 1M a.qcow2@first
platter info -f raw a.qcow2@first | sed -n 1,3p
