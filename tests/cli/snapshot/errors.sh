# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 a.qcow2 1M
platter snapshot create --id=seven a.qcow2 one
platter snapshot create a.qcow2 two
code_of platter snapshot create a.qcow2 one
code_of platter snapshot create --id=seven a.qcow2 three
code_of platter snapshot create a.qcow2 "$(printf '%0256d' 1)"
code_of platter snapshot create a.qcow2
code_of platter snapshot list a.qcow2 b.qcow2
code_of platter snapshot frobnicate a.qcow2
code_of platter snapshot delete a.qcow2 nope
code_of platter snapshot apply a.qcow2 nope
code_of platter snapshot diff a.qcow2 nope
code_of platter snapshot read a.qcow2 nope x
platter snapshot -l a.qcow2 | cut -c1-16
truncate -s 1M r.raw
code_of platter snapshot -c s -f raw r.raw
code_of platter snapshot diff -f raw r.raw s
platter snapshot -l -f raw r.raw
# A damaged table of a snapshot is told of, and nothing is lost by it.
qemu-io -c 'write -P 1 0 64k' a.qcow2 >out
platter snapshot create a.qcow2 three
cp a.qcow2 good.qcow2
off=$(python3 -c 'import struct; f = open("a.qcow2", "rb").read()
t = struct.unpack(">Q", f[64:72])[0]
for i in range(2):
    a, b, e = *struct.unpack(">HH", f[t + 12:t + 16]), struct.unpack(">I", f[t + 36:t + 40])[0]
    t += (40 + e + a + b + 7) // 8 * 8
print(struct.unpack(">Q", f[t:t + 8])[0])')
put "$off" '\x00\x00\x00\x00\x00\x05\x00\x01' a.qcow2
cp a.qcow2 bad.qcow2
code_of platter snapshot apply a.qcow2 three
platter compare a.qcow2 good.qcow2
code_of platter snapshot delete a.qcow2 three
platter compare a.qcow2 good.qcow2
qemu-io -c 'read -P 1 0 64k' a.qcow2 | grep -c ^read
