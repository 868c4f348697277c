# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A snapshot whose table is damaged: an error, or, salvaged, holes; the others are what they were.
qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 8M
qemu-io -c 'write -P 1 0 4M' a.qcow2 >out
platter snapshot create a.qcow2 one
qemu-io -c 'write -P 2 1M 64k' a.qcow2 >out
platter snapshot create a.qcow2 two
qemu-io -c 'write -P 3 1M 64k' a.qcow2 >out
off=$(python3 -c 'import struct
f = open("a.qcow2", "rb").read()
at, = struct.unpack(">Q", f[64:72])
i, n, extra = *struct.unpack(">HH", f[at + 12:at + 16]), *struct.unpack(">I", f[at + 36:at + 40])
at += (40 + extra + i + n + 7) // 8 * 8
l1, = struct.unpack(">Q", f[at:at + 8])
print(struct.unpack(">Q", f[l1:l1 + 8])[0] & 0xfffffffffffe00)')
put $((off + 300 * 8)) '\x3f' a.qcow2
code_of platter convert --snapshots -O qcow2 a.qcow2 b.qcow2
code_of platter convert --snapshots --salvage -O qcow2 a.qcow2 b.qcow2
qemu-img check -q b.qcow2
platter compare b.qcow2@one a.qcow2@one
platter compare b.qcow2 a.qcow2
platter snapshot read b.qcow2 two two.raw
qemu-io -f raw -c 'read -P 1 0 1M' -c 'read -P 2 1M 64k' -c 'read -P 0 1200k 4k' -c 'read -P 1 1204k 2M' two.raw | grep -c ^read
left_here
