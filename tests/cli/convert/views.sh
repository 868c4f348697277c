# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
data 1M a.raw 1
platter convert -f raw -O qcow2 a.raw a.qcow2
qemu-img snapshot -c first a.qcow2
qemu-io -c 'write -P 7 0 1M' a.qcow2 >/dev/null
for args in '-l first a.qcow2' '-l snapshot.name=first a.qcow2' '-l snapshot.id=1 a.qcow2' '-l 1 a.qcow2' \
    '--view first a.qcow2' 'a.qcow2@first' 'a.qcow2@1'; do
    platter convert -O raw $args b.raw
    cmp a.raw b.raw
done
platter convert -O raw a.qcow2 b.raw
code_of cmp -s a.raw b.raw
code_of platter convert -O raw -l nope a.qcow2 b.raw
code_of platter convert -O raw a.qcow2@nope b.raw
