# SPDX-License-Identifier: MIT
# What was in use, has data that is not known, or lies: told, not used, and never in the way.
directory() {
    python3 -c 'import struct, sys
d = open(sys.argv[1], "rb").read()
at = struct.unpack_from(">I", d, 100)[0]
while True:
    kind, length = struct.unpack_from(">II", d, at)
    if kind == 0x23852875:
        print(struct.unpack_from(">Q", d, at + 24)[0])
        break
    at += 8 + (length + 7) // 8 * 8' "$1"
}
qemu-img create -q -f qcow2 good.qcow2 10M
for name in first second; do platter bitmap --add good.qcow2 $name; done
at=$(directory good.qcow2)
try() {
    echo "== $1"
    cp good.qcow2 a.qcow2
    put $((at + $2)) "$3" a.qcow2
    code_of platter bitmap list a.qcow2 2>&1
    platter bench -w -q -c 1 -s 4096 a.qcow2 2>&1
    code_of platter bitmap list a.qcow2 2>&1
    code_of platter bitmap --clear a.qcow2 first 2>&1
    code_of platter resize -q a.qcow2 20M 2>&1
    code_of platter bitmap --remove a.qcow2 first 2>&1
    code_of platter check -q a.qcow2 2>&1
}
try 'in use' 15 '\x01'
try 'unknown flag' 15 '\x12'
try 'extra data that is compatible' 15 '\x06'
try 'unknown type' 16 '\x02'
try 'granularity' 17 '\x08'
try 'no name' 18 '\0\0'
try 'the name reaches behind the directory' 18 '\x03\xff'
try 'table nowhere' 0 '\x01'
try 'table in the middle of a cluster' 6 '\x02'
try 'table too short' 8 '\0\0\0\0'
try 'twice the same name' 18 '\0\x06\0\0\0\0second'
echo '== left out'
put $((at + 15)) '\x01' good.qcow2
code_of platter convert --bitmaps -O qcow2 good.qcow2 b.qcow2
platter convert --bitmaps --skip-broken-bitmaps -O qcow2 good.qcow2 b.qcow2
platter bitmap list b.qcow2
