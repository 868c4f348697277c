# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A request into new clusters writes what it has, and no zeros around it: the file is made longer
# there. Clusters that were used before are written whole, and so is what a backing file has.
pages() {
    platter bench -q -w -c 8 -s 4096 -o 64k -S 4M --pattern=7 "$1"
}
look() {
    test $(($(stat -c %s "$1") % 2097152)) -eq 0
    test $(($(stat -c %b "$1") / 2)) -lt "$2"
    qemu-img check -q "$1"
}
qemu-img create -q -f qcow2 -o cluster_size=2M a.qcow2 32M
pages a.qcow2
look a.qcow2 8192
stat -c %s a.qcow2
qemu-io -c 'read -P 0 0 64k' -c 'read -P 7 64k 4k' -c 'read -P 0 68k 4028k' -c 'read -P 7 28736k 4k' \
    a.qcow2 | count 'bytes at'
echo '== used before'
qemu-io -c 'write -P 1 0 32M' -c 'discard 0 32M' a.qcow2 >/dev/null
pages a.qcow2
look a.qcow2 40960
qemu-io -c 'read -P 0 0 64k' -c 'read -P 7 64k 4k' -c 'read -P 0 68k 4028k' a.qcow2 | count 'bytes at'
echo '== over a backing file'
qemu-img create -q -f raw base.raw 16M
qemu-io -f raw -c 'write -P 5 0 9M' base.raw >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=2M -b base.raw -F raw b.qcow2 32M
pages b.qcow2
look b.qcow2 16384
qemu-io -c 'read -P 5 0 64k' -c 'read -P 7 64k 4k' -c 'read -P 5 68k 4028k' -c 'read -P 5 8M 64k' \
    -c 'read -P 7 8256k 4k' -c 'read -P 5 8260k 956k' -c 'read -P 0 9M 3M' b.qcow2 | count 'bytes at'
