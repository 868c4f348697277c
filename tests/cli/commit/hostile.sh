# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Tables and grains that are said to stand in the descriptor, behind the end of the disk or in its
# last grain, where no guest looks: what must clear them writes nothing there.
# FILE, where the header says where the directory is, entry, sector, and the capacity
poke() {
    python3 - "$@" <<'EOF'
import struct, sys
name, field, index, sector = sys.argv[1], *map(int, sys.argv[2:5])
with open(name, "r+b") as f:
    header = f.read(512)
    (at,) = struct.unpack_from("<Q", header, field)
    f.seek(at * 512 + 4 * index)
    f.write(struct.pack("<I", sector))
    if len(sys.argv) > 5:
        f.seek(12)
        f.write(struct.pack("<Q", int(sys.argv[5])))
EOF
}
platter create -q -f vmdk base.vmdk 4M
platter create -q -f vmdk -b base.vmdk -F vmdk child.vmdk
qemu-io -f vmdk -c 'write -P 7 1M 1M' child.vmdk >/dev/null
poke child.vmdk 56 1 1 73728
poke child.vmdk 48 1 30
platter convert -O raw child.vmdk right.raw
code_of platter commit child.vmdk
platter compare -F raw child.vmdk right.raw
# The grain that a disk ends in.
platter create -q -f vmdk small.vmdk 4M
platter resize -q small.vmdk 4100k
qemu-io -f vmdk -c 'write -P 7 4M 4k' -c 'write -P 8 0 64k' small.vmdk >/dev/null
python3 - <<'EOF'
import struct
with open("small.vmdk", "r+b") as f:
    header = f.read(512)
    for field in 48, 56:
        (at,) = struct.unpack_from("<Q", header, field)
        f.seek(at * 512)
        (table,) = struct.unpack("<I", f.read(4))
        f.seek(table * 512 + 4 * 64)
        f.write(struct.pack("<I", 1 + 15))
EOF
cp small.vmdk before.vmdk
code_of platter resize small.vmdk 8M
cmp small.vmdk before.vmdk && echo same
