# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow2: what qemu-img says of good images we say; damage is found, mended, and found no more.
qemu-img create -q -f qcow2 a.qcow2 64M
qemu-io -f qcow2 -c 'write -P 7 0 1M' -c 'write 33M 64k' -c 'write -z 40M 1M' a.qcow2 >/dev/null
qemu-img snapshot -c one a.qcow2
qemu-io -f qcow2 -c 'write -P 8 128k 64k' a.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o extended_l2=on wide.qcow2 64M
qemu-io -f qcow2 -c 'write -P 7 3k 1M' wide.qcow2 >/dev/null
qemu-img convert -c -O qcow2 a.qcow2 packed.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=4k meta.qcow2 64M
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 0
for image in a wide packed meta old; do
    same check $image.qcow2
done
platter check --data packed.qcow2

# Counts of nobody, a count that is too low, an entry that leads nowhere.
put $((2 * 65536 + 80)) '\0\1\0\1' a.qcow2
cp a.qcow2 b.qcow2
code_of platter check -q b.qcow2
code_of platter check b.qcow2
platter check -r leaks b.qcow2
same check b.qcow2
put $((2 * 65536 + 10)) '\0\0' a.qcow2
code_of platter check -r leaks a.qcow2
platter check -r all --output=json a.qcow2
same check a.qcow2

# The counts are lost altogether.
put 48 '\0\0\0\0\0\0\0\7' a.qcow2
code_of platter check a.qcow2
platter check -r all a.qcow2
same check a.qcow2
qemu-io -f qcow2 -r -c 'read -P 7 0 128k' -c 'read -P 8 128k 64k' a.qcow2 | count 65536

# Of an image that was not closed cleanly; what is more than that is not mended by opening it.
put 79 '\1' b.qcow2
put $((2 * 65536 + 12)) '\0\0' b.qcow2
cp b.qcow2 c.qcow2
platter resize -q b.qcow2 65M
same check b.qcow2
put "$(od -An -j40 -N8 --endian=big -tu8 c.qcow2 | tr -d " ")" "\1" c.qcow2
code_of platter resize -q c.qcow2 65M

# What is marked as corrupt is not written to.
put 79 '\2' b.qcow2
code_of platter resize -q b.qcow2 66M
platter check -r all b.qcow2
platter resize -q b.qcow2 66M
