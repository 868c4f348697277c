# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A descriptor grows into sectors that hold nothing, as many as there are; what somebody else stored
# between it and the tables stays.
qemu-img create -q -f vmdk base.vmdk 1M
far=$(printf './%.0s' {1..300})base.vmdk

# image AT SECTORS STRANGE: the text at sector AT, with so many for it, and bytes that are none in another.
image() {
    rm -f image.vmdk
    qemu-img create -q -f vmdk image.vmdk 1M
    qemu-io -f vmdk -c 'write -q -P 7 64k 64k' image.vmdk
    qemu-img convert -O raw image.vmdk right.raw
    python3 - "$@" <<'EOF'
import struct, sys
at, sectors, strange = map(int, sys.argv[1:])
with open("image.vmdk", "r+b") as f:
    f.seek(512)
    text = f.read(512)
    f.seek(512)
    f.write(bytes(20 * 512))
    f.seek(at * 512)
    f.write(text)
    f.seek(strange * 512)
    f.write(b"\xff\x00" * 256)
    f.seek(28)
    f.write(struct.pack("<QQ", at, sectors))
EOF
}

# rebased STRANGE: where the text is after a rebase to a parent with a long name, and what became of
# the sector.
rebased() {
    local before
    before=$(sha256sum image.vmdk)
    code_of platter rebase -u -b "$far" -F vmdk image.vmdk 2>&1 | sed 's/take [0-9]* bytes/take N bytes/'
    if [ "$before" = "$(sha256sum image.vmdk)" ]; then echo "nothing changed"; fi
    od -An -t u8 -j 28 -N 16 image.vmdk
    od -An -t x1 -j $(($1 * 512)) -N 4 image.vmdk
    platter compare -F raw image.vmdk right.raw
    platter info image.vmdk | count -F "backing file: $far"
}

echo "== in front of it"
image 8 12 1
rebased 1
echo "== behind it"
image 1 1 4
rebased 4
echo "== right behind it"
image 1 1 2
rebased 2

echo "== redundant tables that hold nothing where the text would grow"
rm image.vmdk
qemu-img create -q -f vmdk image.vmdk 16M
qemu-io -f vmdk -c 'write -q -P 7 9M 64k' image.vmdk
qemu-img convert -O raw image.vmdk right.raw
python3 - <<'EOF'
import struct
with open("image.vmdk", "r+b") as f:
    f.seek(48)
    (rgd,) = struct.unpack("<Q", f.read(8))
    f.seek(rgd * 512)
    (table,) = struct.unpack("<I", f.read(4))
    f.seek(table * 512)
    entries = f.read(2048)
    f.seek(rgd * 512)
    f.write(struct.pack("<I", 2))
    f.seek(2 * 512)
    f.write(entries)
    f.seek(36)
    f.write(struct.pack("<Q", 1))
EOF
rebased 2
platter check image.vmdk
