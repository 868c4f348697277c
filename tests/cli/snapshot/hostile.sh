# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Snapshots where none can be: in an image with an external data file.
qemu-img create -q -f qcow2 -o data_file=d.raw,cluster_size=4k a.qcow2 1M
qemu-io -c 'write -P 1 0 64k' a.qcow2 >out
python3 -c 'import struct
f = open("a.qcow2", "r+b")
image = f.read()
end = (len(image) + 4095) // 4096 * 4096
l1, = struct.unpack(">Q", image[40:48])
f.seek(end)
f.write(image[l1:l1 + 8] + bytes(4088))
f.write(struct.pack(">QIHHIIQIIQQQ2s3s3x", end, 1, 2, 3, 0, 0, 0, 0, 24, 0, 1 << 20, 0, b"id", b"one"))
f.write(bytes(4096 - 72))
f.seek(60)
f.write(struct.pack(">IQ", 1, end + 4096))'
platter snapshot list a.qcow2 | cut -c1-16
code_of platter snapshot create a.qcow2 two
code_of platter snapshot apply a.qcow2 one
code_of platter snapshot delete a.qcow2 one
code_of platter convert --snapshots -O qcow2 a.qcow2 b.qcow2
left_here
