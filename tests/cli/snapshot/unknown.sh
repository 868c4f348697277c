# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What a newer version put behind the fields we know of a snapshot is kept when the table is written anew.
cat >table.py <<'P'
import struct, sys
f = open("a.qcow2", "r+b")
image = f.read()
at, = struct.unpack(">Q", image[64:72])
if sys.argv[1] == "put":
    extra, = struct.unpack(">I", image[at + 36:at + 40])
    f.seek(at + 36)
    f.write(struct.pack(">I", extra + 11))
    f.seek(at + 40 + extra)
    f.write(b"from later!" + image[at + 40 + extra:at + 40 + extra + 64])
else:
    for _ in range(struct.unpack(">I", image[60:64])[0]):
        i, n, = struct.unpack(">HH", image[at + 12:at + 16])
        extra, = struct.unpack(">I", image[at + 36:at + 40])
        print(image[at + 40 + 24:at + 40 + extra + i + n])
        at += (40 + extra + i + n + 7) // 8 * 8
P
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-img snapshot -c one a.qcow2
python3 table.py put
python3 table.py show
platter snapshot create a.qcow2 two
python3 table.py show
platter snapshot create a.qcow2 three
platter snapshot delete a.qcow2 two
python3 table.py show
qemu-img check -q a.qcow2
platter check -q a.qcow2
platter snapshot -l a.qcow2 | cut -c1-20
