# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Behind damage it goes on; what is lost is zeros, and told.
three_disks
archive x.vma -c conf=text -p 4 -s 1 drive-scsi0=a.raw drive-scsi2=c.raw
cp x.vma bad.vma
put $((12800 + 100)) '\x55\x55' bad.vma
code_of platter extract -o no bad.vma
left_here
echo "--- with --salvage"
code_of platter extract --salvage -o out bad.vma
ls out
python3 - <<'END'
zeros = bytes(65536)
for name, path in ("drive-scsi0", "a.raw"), ("drive-scsi2", "c.raw"):
    good, got = open(path, "rb").read(), open("out/" + name + ".raw", "rb").read()
    assert len(good) == len(got)
    for at in range(0, len(good), 65536):
        if good[at:at + 65536] != got[at:at + 65536]:
            print(name, "lost", at, got[at:at + 65536].strip(b"\0") == b"")
END
echo "--- JSON, into an existing target, which has zeros then where it is lost"
repeated 740K old >t.raw
code_of platter extract --salvage --output=json -d drive-scsi0 -n bad.vma t.raw
cmp t.raw out/drive-scsi0.raw
echo "--- cut off, out of a pipe"
head -c 700000 x.vma | code_of platter extract --salvage -q -o cut -
ls cut
echo "--- a good one"
platter extract --salvage -o good x.vma
cmp a.raw good/drive-scsi0.raw
cmp c.raw good/drive-scsi2.raw
