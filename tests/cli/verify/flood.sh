# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive of nothing but faults: so many of a kind are told, so many are kept, and all are counted.
python3 - <<'END'
import hashlib
import struct

UUID = bytes(range(16))


def sealed(bytes_, at):
    bytes_[at:at + 16] = hashlib.md5(bytes_).digest()
    return bytes_


def header(size):
    name = b"drive-scsi0\0"
    blobs = b"\0" + struct.pack("<H", len(name)) + name
    h = bytearray(12288 + 512)
    h[0:24] = b"VMA\0" + struct.pack(">I", 1) + UUID
    struct.pack_into(">III", h, 48, 12288, len(blobs), len(h))
    struct.pack_into(">IIQ", h, 4096 + 32, 1, 0, size)
    h[12288:12288 + len(blobs)] = blobs
    return sealed(h, 32)


def extent(clusters):
    e = bytearray(512)
    e[0:24] = b"VMAE" + bytes(4) + UUID
    for i, cluster in enumerate(clusters):
        struct.pack_into(">HBBI", e, 40 + 8 * i, 0, 0, 1, cluster)
    return sealed(e, 24)


with open("same.vma", "wb") as f:
    f.write(header(59 * 65536) + extent(range(59)) * 300)
with open("gaps.vma", "wb") as f:
    f.write(header(120000 * 65536))
    for k in range(1000):
        f.write(extent(range(118 * k, 118 * k + 118, 2)))
END
for file in same.vma gaps.vma; do
    echo "--- $file"
    code_of platter verify $file 2>err
    echo "$(count -v 'more of this kind' <err) lines"
    tail -1 err
    code_of platter verify --output=json $file >json
    head -n -1 json | jq -c '[."fault-count", ."faults-left-out", (.faults | length)],
        (.devices[] | [(.holes | length), ."holes-left-out", (.doubts | length)])'
    code_of platter extract --salvage -o out $file 2>err
    grep 'more of this kind' err
    code_of platter extract --salvage --output=json -o json.out $file >json
    head -n -1 json | jq -c '[."fault-count", ."faults-left-out", (.faults | length)],
        (.disks[] | [(.holes | length), ."holes-left-out", (.doubts | length)])'
    code_of platter vma verify $file 2>err
    tail -1 err
    rm -r out json.out
done
