# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An import or export that comes to nothing leaves nothing.
data 9M big
qemu-img create -q -f qcow2 a.qcow2 8M
qemu-io -c 'write -P 1 0 1M' a.qcow2 >out
platter snapshot create --id=five a.qcow2 one
sum=$(platter digest a.qcow2)
as_before() {
    qemu-img check a.qcow2 | tail -1
    [ "$(platter digest a.qcow2)" = "$sum" ] && echo the same disk
    platter snapshot list a.qcow2 | wc -l
}
as_before
code_of platter snapshot state --import=big a.qcow2 one
as_before
code_of platter snapshot state --import=big --id=five a.qcow2 two
as_before
# No room for all of it.
(ulimit -f 6000 && code_of platter snapshot state --import=big a.qcow2 two)
as_before
# A signal.
mkfifo pipe
platter snapshot state --import=pipe a.qcow2 two &
exec 3>pipe
head -c 2500K big >&3
kill -TERM $!
exec 3>&-
code_of wait $!
as_before
# What is behind the disk is given back, and used again.
platter snapshot state --import=big a.qcow2 two
platter snapshot state --export=out a.qcow2 two
cmp out big
(ulimit -f 6000 && code_of platter snapshot state --export=out a.qcow2 two)
code_of platter snapshot state --export=/dev/full a.qcow2 two
code_of bash -c 'platter snapshot state --export=- a.qcow2 two >/dev/full'
platter snapshot state --export=/dev/null -p a.qcow2 two | tr '\r' '\n' | grep -c '100.00.100'
left_here
