# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A count that is too low is damage, by which nothing may be cut off: a table at the end of the file
# that counts as free is still there when the disk was made smaller.
platter create -q -f raw base.raw 1G
qemu-io -f raw -c 'write -P 5 600M 64k' base.raw >/dev/null
platter create -q -f qcow2 -b base.raw -F raw a.qcow2
qemu-io -f qcow2 -c 'write -P 7 0 64k' -c 'write -z -u 600M 64k' a.qcow2 >/dev/null
python3 - <<'EOS'
import struct
with open("a.qcow2", "r+b") as f:
    image = f.read()
    (table,) = struct.unpack_from(">Q", image, 48)
    (block,) = struct.unpack_from(">Q", image, table)
    (l1,) = struct.unpack_from(">Q", image, 40)
    (l2,) = struct.unpack_from(">Q", image, l1 + 8)
    cluster = (l2 & ~(1 << 63)) >> 16
    print("the table is the last cluster:", cluster == (len(image) - 1) >> 16)
    f.seek(block + 2 * cluster)
    f.write(b"\0\0")
EOS
code_of platter amend -o compat=0.10 a.qcow2 2>&1 | sed 's/at [0-9]*/at N/'
platter resize -q --shrink a.qcow2 900M
qemu-io -r -f qcow2 -c 'read -q -P 7 0 64k' -c 'read -q -P 0 600M 64k' a.qcow2
platter check -q -r all a.qcow2
qemu-img check -q a.qcow2
qemu-io -r -f qcow2 -c 'read -q -P 7 0 64k' -c 'read -q -P 0 600M 64k' a.qcow2
