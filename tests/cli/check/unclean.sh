# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The mark of a file that was not closed goes when nothing is wrong with it, and not before.
mark() { od -An -t u1 -j 72 -N 1 a.vmdk; }
qemu-img create -q -f vmdk a.vmdk 64M
qemu-io -f vmdk -c 'write -P 7 0 1M' a.vmdk >/dev/null
put 72 '\x01' a.vmdk
python3 - <<'EOF'
with open("a.vmdk", "r+b") as f:
    head = f.read(1 << 16)
    gd = int.from_bytes(head[56:64], "little") * 512
    f.seek(int.from_bytes(head[gd:gd + 4], "little") * 512)
    f.write((10000000).to_bytes(4, "little"))
EOF
code_of platter check -q -r leaks a.vmdk
mark
platter check -q a.vmdk -r all
mark
platter check -q a.vmdk -r leaks
mark
put 72 '\x01' a.vmdk
platter check -q a.vmdk
mark
platter check -q a.vmdk -r leaks
mark
