# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Entries behind the end of the disk, of a resize that was cut short or of another program: what they
# name does not come to be seen.
platter create -q -f vmdk whole.vmdk 80M
qemu-io -f vmdk -c 'write -P 5 1M 64k' -c 'write -P 7 6M 64k' -c 'write -P 8 70M 1M' whole.vmdk >/dev/null
python3 - <<'EOF'
with open("whole.vmdk", "rb") as f:
    image = bytearray(f.read())
image[12:20] = (4 << 11).to_bytes(8, "little")
line, shorter = b"RW 163840", b"RW 8192  "
image[512:] = image[512:].replace(line, shorter, 1)
with open("short.vmdk", "wb") as f:
    f.write(image)
# The same where only the line is short: the file has room for more than the disk.
image[12:20] = (80 << 11).to_bytes(8, "little")
with open("room.vmdk", "wb") as f:
    f.write(image)
EOF
for image in short room; do
    echo "== $image"
    platter info $image.vmdk | grep 'virtual size' | head -1
    for size in 8M 80M; do
        platter resize -q $image.vmdk $size
        qemu-io -r -f vmdk -c 'read -P 5 1M 64k' -c 'read -P 0 1088k 6976k' $image.vmdk | grep -c ^read
    done
    qemu-io -r -f vmdk -c 'read -P 0 8M 72M' $image.vmdk | grep -c ^read
done
