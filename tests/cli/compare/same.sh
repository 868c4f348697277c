# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
cp a.raw b.raw
qemu-img convert -f raw -c -O qcow2 a.raw a.qcow2
qemu-img convert -f raw -O vmdk a.raw a.vmdk
same compare -f raw -F raw a.raw b.raw
same compare a.raw a.qcow2
same compare -f qcow2 -F vmdk a.qcow2 a.vmdk
same compare -q a.raw a.qcow2
same compare -U a.vmdk a.qcow2
same compare a.qcow2 a.qcow2
platter compare -f raw a.raw a.qcow2
