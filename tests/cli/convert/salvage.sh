# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A hole in the middle: an error, or with --salvage everything else, and the hole told.
data 1M a.raw
platter convert -f raw -c -O qcow2 a.raw a.qcow2
qemu-img map --output=json a.qcow2 >/dev/null
head -c 500000 a.qcow2 >cut.qcow2
cp cut.qcow2 cut.old
code_of platter convert -O raw cut.qcow2 b.raw 2>err
grep -q cut.qcow2 err && echo 'the error names the file'
left_here
code=0
platter convert --salvage -O raw cut.qcow2 b.raw 2>holes || code=$?
echo "exit code $code"
grep -c '^platter: hole at offset [0-9]*, length [0-9]*: ' holes
tail -1 holes | sed 's/[0-9][0-9]*/N/'
cmp cut.qcow2 cut.old
# Outside of the holes nothing is lost; inside there are zeros.
python3 - <<'END'
import re
a, b = open("a.raw", "rb").read(), bytearray(open("b.raw", "rb").read())
assert len(a) == len(b)
for off, length in re.findall(r"offset (\d+), length (\d+)", open("holes").read()):
    off, end = int(off), int(off) + int(length)
    assert not any(b[off:end])
    b[off:end] = a[off:end]
assert a == bytes(b)
print("the rest is there")
END
