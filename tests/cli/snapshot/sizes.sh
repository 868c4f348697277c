# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A snapshot knows its size, and the disk gets it back; no space of it stays behind.
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-io -c 'write -P 1 0 1M' a.qcow2 >out
platter snapshot create a.qcow2 small
platter resize -q a.qcow2 600M
qemu-io -c 'write -P 2 512k 1M' -c 'write -P 3 599M 1M' a.qcow2 >out
platter snapshot create a.qcow2 large
platter snapshot list --output=json a.qcow2 | grep '"size"'
for i in small large small; do
    platter snapshot apply a.qcow2 $i
    qemu-img check -q a.qcow2
    platter info a.qcow2 | grep 'virtual size'
done
platter compare a.qcow2 a.qcow2@small
platter snapshot delete a.qcow2 2
platter snapshot delete a.qcow2 1
qemu-img check a.qcow2 | tail -1
[ "$(stat -c %b a.qcow2)" -lt 3200 ] && echo space is given back
code_of platter snapshot apply a.qcow2 small
