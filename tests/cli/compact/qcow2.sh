# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What a file holds moves to its front, and the file is cut; what would be won is told before.
make() {
    qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 8M
    qemu-io -c 'write -P 1 0 4M' a.qcow2 >/dev/null
    qemu-img snapshot -c one a.qcow2
    qemu-io -c 'write -P 2 1M 2M' -c 'write -P 3 6M 1M' a.qcow2 >/dev/null
    qemu-img snapshot -c two a.qcow2
    qemu-img snapshot -d one a.qcow2
    qemu-io -c 'discard 0 512k' a.qcow2 >/dev/null
}
make
stat -c %s a.qcow2
platter digest a.qcow2 >right
sha256sum a.qcow2 >sum
platter compact --dry-run a.qcow2
platter compact -n --output=json a.qcow2
sha256sum --quiet -c sum
platter compact a.qcow2
stat -c %s a.qcow2
qemu-img check -q a.qcow2
platter digest a.qcow2 | cmp - right
echo '== again'
platter compact a.qcow2
platter compact -n a.qcow2
platter compact -q a.qcow2
echo '== JSON, and progress'
make
platter compact -p --output=json a.qcow2 2>progress
grep -o '100.00/100%' progress | tail -1
echo '== leaks are given back'
make
python3 - a.qcow2 <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(48)
    table = struct.unpack(">Q", f.read(8))[0]
    f.seek(table)
    block = struct.unpack(">Q", f.read(8))[0]
    f.seek(0, 2)
    end = f.tell() // 4096
    f.truncate((end + 8) * 4096)
    f.seek(block + end * 2)
    f.write(struct.pack(">8H", *[1] * 8))
END
platter compact -n --output=json a.qcow2 | grep -E 'leaked|dry'
platter compact a.qcow2
qemu-img check -q a.qcow2
