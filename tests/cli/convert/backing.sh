# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 4M base.raw
cp base.raw new.raw
put 1048576 CHANGED new.raw
platter convert -f raw -O qcow2 base.raw base.qcow2
platter convert -f raw -O qcow2 -B base.qcow2 -F qcow2 new.raw top.qcow2
qemu-img compare new.raw top.qcow2
qemu-img map --output=json top.qcow2 | grep -c '"depth": 0'
platter convert -f raw -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 new.raw top.qcow2
qemu-img info top.qcow2 | grep backing
qemu-img compare new.raw top.qcow2
platter convert -O raw top.qcow2 back.raw
cmp back.raw new.raw
