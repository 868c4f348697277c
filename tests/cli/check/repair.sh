# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Damage in one of two copies: found, mended, found no more; the words are those of qemu-img's check
# of a qcow2, which repairs as well.
qemu-img create -q -f vmdk a.vmdk 64M
qemu-io -f vmdk -c 'write -P 7 0 1M' a.vmdk >/dev/null
python3 - <<'END'
with open("a.vmdk", "r+b") as f:
    head = f.read(1 << 16)
    gd = int.from_bytes(head[56:64], "little") * 512
    gt = int.from_bytes(head[gd:gd + 4], "little") * 512
    f.seek(gt)
    f.write((10000000).to_bytes(4, "little"))
END
cp a.vmdk b.vmdk
code_of platter check a.vmdk
code_of platter check -q a.vmdk
code_of platter check -r leaks a.vmdk
code_of platter check --output=json a.vmdk
cmp a.vmdk b.vmdk
platter check -r all a.vmdk
platter check a.vmdk
qemu-io -f vmdk -c 'read -P 7 0 1M' a.vmdk | head -1
platter check -r all --output=json b.vmdk
head -c 200000 /dev/zero | tr '\0' x >>a.vmdk
code_of platter check a.vmdk
platter check -r leaks a.vmdk
