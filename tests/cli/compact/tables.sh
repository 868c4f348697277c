# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Tables decide what can be won: those of several clusters, and those of views that share data.
echo '== one of several clusters that stands across the end would need more room than there is'
qemu-img create -q -f qcow2 -o cluster_size=512 across.qcow2 64M
qemu-io -c 'write -P 1 0 8k' -c 'write -P 2 1M 8k' -c 'discard 0 5k' across.qcow2 >/dev/null
qemu-img snapshot -c one across.qcow2
platter compact -n across.qcow2
platter compact across.qcow2
platter compact -n across.qcow2
qemu-img check -q across.qcow2
echo "== little memory: tables that are not looked at, and what they share"
qemu-img create -q -f qcow2 -o cluster_size=4k large.qcow2 4M
qemu-io -c 'write -P 1 0 4k' large.qcow2 >/dev/null
platter resize -q --preallocation=metadata large.qcow2 11G
qemu-io -c 'write -P 2 1M 1M' -c 'discard 100M 100M' large.qcow2 >/dev/null
qemu-img snapshot -c one large.qcow2
qemu-io -c 'write -P 3 0 4k' large.qcow2 >/dev/null
platter compact -q --memory 4M large.qcow2
[ "$(stat -c %s large.qcow2)" -lt 11760000000 ] && echo smaller
qemu-img check -q large.qcow2
qemu-io -c 'read -P 3 0 4k' -c 'read -P 2 1M 1M' large.qcow2 | count 'bytes at'
echo '== a refcount table that is too long now'
qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 long.qcow2 16M
qemu-io -c 'write -P 1 0 8M' -c 'write -P 2 8M 64k' -c 'discard 0 8M' long.qcow2 >/dev/null
od -An -tu1 -j 56 -N 4 long.qcow2
platter compact -n long.qcow2 | sed 's/ Would move.*//'
platter compact long.qcow2 | sed 's/ Moved.*//'
od -An -tu1 -j 56 -N 4 long.qcow2
qemu-img check -q long.qcow2
qemu-io -c 'read -P 2 8M 64k' -c 'write -P 3 0 8M' long.qcow2 | count 'bytes at'
qemu-img check -q long.qcow2
