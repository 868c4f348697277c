# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A table behind the grains that only one directory names: left by a crash if it is empty, but not if
# it has entries.
qemu-img create -q -f vmdk a.vmdk 64M
qemu-io -f vmdk -c 'write -P 7 0 1M' -c 'write -P 8 40M 1M' a.vmdk >/dev/null
qemu-img convert -O raw a.vmdk right.raw
python3 - <<'EOF'
def number(at, length):
    return int.from_bytes(image[at:at + length], "little")

def put(at, value):
    image[at:at + 4] = value.to_bytes(4, "little")

with open("a.vmdk", "rb") as f:
    image = bytearray(f.read())
rgd, gd = 512 * number(48, 8), 512 * number(56, 8)
table = 512 * number(gd, 4)
image += bytes(-len(image) % 65536)
put(gd, len(image) // 512)
put(rgd, 0)
image += image[table:table + 2048]
with open("a.vmdk", "wb") as f:
    f.write(image)
EOF
code_of platter check -q a.vmdk
platter check -q -r all a.vmdk
platter check --output=json a.vmdk | grep allocated
platter compare -F raw a.vmdk right.raw
qemu-img compare -F raw a.vmdk right.raw

echo "== an empty one"
python3 - <<'EOF'
def number(at, length):
    return int.from_bytes(image[at:at + length], "little")

with open("a.vmdk", "rb") as f:
    image = bytearray(f.read())
rgd, gd = 512 * number(48, 8), 512 * number(56, 8)
table = 512 * number(gd, 4)
image[table:table + 2048] = bytes(2048)
image[rgd:rgd + 4] = bytes(4)
with open("a.vmdk", "wb") as f:
    f.write(image)
EOF
code_of platter check a.vmdk
platter check -q -r leaks a.vmdk
platter check -q a.vmdk
qemu-img convert -O raw a.vmdk now.raw
cmp -n 32M now.raw /dev/zero
cmp -i 32M now.raw right.raw
