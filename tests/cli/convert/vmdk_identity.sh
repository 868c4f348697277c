# SPDX-License-Identifier: MIT
# The first write gives a disk another content ID, of 8 digits, and leaves the rest of its text as it is.
data 64K data.raw
truncate -s 64K disk-flat.vmdk

# disk CID [LINE]
disk() {
    printf '%s\r\n' '# Disk DescriptorFile' '  version=1 ' "CID = $1" parentCID=ffffffff \
        'createType="monolithicFlat"' 'RW 128 FLAT "disk-flat.vmdk" 0' '#DDB' 'odd.key = "x"' "${@:2}" >disk.vmdk
    cp disk.vmdk before.vmdk
}
write() { platter convert -n -f raw -O vmdk data.raw disk.vmdk; }
value() { sed -n "s/^$1 *= *//p" disk.vmdk | tr -d '"\r'; }

# What changed: the lines, with the numbers that nobody can know left out.
changes() {
    { diff before.vmdk disk.vmdk && echo none || [ $? = 1 ]; } |
        sed -E 's/[0-9a-f]{32}/LONG/; s/= ([0-9a-f]{8})\r/= SHORT/; s/\r//; /^(none|[<>])/!d'
}

for cid in 12345678 fffffffe abc 0; do
    disk $cid
    write
    echo "== $cid"
    changes
    new=$(value CID)
    [ "$new" != "$cid" ] && [ ${#new} -eq 8 ] || echo "WRONG: $new"
    case $new in ffffffff | fffffffe) echo "WRONG: $new" ;; esac
done
echo "== a long one"
for cid in 12345678 fffffffe; do
    disk $cid 'ddb.longContentID = "00112233445566778899aabb12345678"'
    write
    changes
    case $(value ddb.longContentID) in *"$(value CID)") ;; *) echo "WRONG: not its end" ;; esac
done
echo "== inside a sparse file"
qemu-img create -q -f vmdk sparse.vmdk 64K
python3 - <<'END'
import re
with open("sparse.vmdk", "r+b") as f:
    f.seek(512)
    text = f.read(10240)
    f.seek(512)
    f.write(re.sub(rb"CID=[0-9a-f]+\n", b"CID=ab\n", text, count=1).ljust(10240, b"\0")[:10240])
END
platter convert -n -f raw -O vmdk data.raw sparse.vmdk
qemu-img info --output=json sparse.vmdk |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["format-specific"]["data"]["cid"] > 0xab)'
dd if=sparse.vmdk bs=512 skip=1 count=1 status=none | grep -aE '^(CID|parentCID|RW)' | sed -E 's/^CID=[0-9a-f]{8}$/CID=SHORT/'
qemu-img compare -f vmdk -F raw sparse.vmdk data.raw
echo "== nothing is written, nothing changes"
disk 12345678
platter digest disk.vmdk >digest
changes
left_here
echo "== no room for a long one, and no whole one to write over"
rm sparse.vmdk
qemu-img create -q -f vmdk sparse.vmdk 64K
python3 - <<'END'
with open("sparse.vmdk", "r+b") as f:
    f.seek(512)
    text = f.read(10240)
    text = text[:text.index(b"\0")] + b'ddb.longContentID = "00112233"\n#'
    text = text.ljust(512 * 2, b"x")
    f.seek(512)
    f.write(text + b"\xff\0" * 256)
    f.seek(36)
    f.write((len(text) // 512).to_bytes(8, "little"))
END
cp sparse.vmdk before.vmdk
code_of platter convert -n -f raw -O vmdk data.raw sparse.vmdk 2>&1 | sed 's/take [0-9]* bytes/take N bytes/'
cmp sparse.vmdk before.vmdk
platter digest sparse.vmdk >digest
