# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Clusters that read as zeros keep their place unless --zeros says otherwise.
qemu-img create -q -f qcow2 -o preallocation=metadata a.qcow2 8M
qemu-io -c 'write -P 1 7M 64k' -c 'write -z 1M 1M' a.qcow2 >/dev/null
platter compact a.qcow2
platter compact -n --zeros a.qcow2
platter compact --zeros a.qcow2
qemu-img check a.qcow2 | grep -v offset
qemu-io -c 'read -P 1 7M 64k' -c 'read -P 0 0 7M' a.qcow2 | count 'bytes at'
echo '== version 2, over a backing file'
qemu-img create -q -f raw base.raw 1M
qemu-img create -q -f qcow2 -o compat=0.10 -b base.raw -F raw over.qcow2
qemu-io -c 'write -P 0 0 256k' over.qcow2 >/dev/null
platter compact --zeros over.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
qemu-io -c 'write -P 0 0 256k' old.qcow2 >/dev/null
platter compact --zeros old.qcow2
qemu-img check -q old.qcow2
echo '== zeros to one view, data to the other'
qemu-img create -q -f qcow2 shared.qcow2 8M
qemu-io -c 'write -P 7 0 1M' shared.qcow2 >/dev/null
platter snapshot -c data shared.qcow2
qemu-io -c 'write -z 0 1M' shared.qcow2 >/dev/null
platter snapshot -c zeros shared.qcow2
platter snapshot -a data shared.qcow2
platter snapshot -d data shared.qcow2
platter compact -q --zeros shared.qcow2
platter check shared.qcow2 | head -1
qemu-img check -q shared.qcow2
qemu-io -c 'read -P 7 0 1M' shared.qcow2 | count 'bytes at'
echo '== what views share is one cluster, and must be given up by all of them'
qemu-img create -q -f qcow2 twice.qcow2 8M
qemu-io -c 'write -P 0 0 1M' twice.qcow2 >/dev/null
platter snapshot -c one twice.qcow2
qemu-io -c 'write -P 1 4M 64k' twice.qcow2 >/dev/null
platter compact -n --zeros twice.qcow2
platter compact --zeros twice.qcow2
qemu-img create -q -f qcow2 partly.qcow2 8M
qemu-io -c 'write -P 7 0 1M' partly.qcow2 >/dev/null
platter snapshot -c data partly.qcow2
qemu-io -c 'write -z 0 1M' partly.qcow2 >/dev/null
platter compact -n --zeros partly.qcow2
platter compact --zeros partly.qcow2
