# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive, compressed again so that it can be read anywhere.
three_disks
archive x.vma -s 3 drive-scsi0=a.raw drive-scsi1=b.raw drive-scsi2=c.raw
zstd -qk x.vma
gzip -k x.vma
platter vma repack x.vma.gz y.vma.zst
zstd -qdc y.vma.zst | cmp - x.vma
platter vma repack --compression gzip --level 1 x.vma.zst y.vma.gz
gzip -dc y.vma.gz | cmp - x.vma
echo "--- the same, however many threads"
platter vma repack -m 1 x.vma z.zst
cmp y.vma.zst z.zst
echo "--- through pipes"
head -c 100M x.vma.gz | platter vma repack - - | zstd -qdc | cmp - x.vma
echo "--- progress is of the file that is read"
platter vma repack -q --progress=json x.vma.zst z.zst 2>events
tail -1 events | python3 -c 'import json, os, sys
e = json.load(sys.stdin)
print(e["done"] == e["total"] == os.path.getsize("x.vma.zst"))'
echo "--- what is there already"
cp z.zst before
code_of platter vma repack --exclusive x.vma z.zst
code_of platter vma repack z.zst z.zst
ln -s z.zst link
code_of platter vma repack z.zst link
cmp z.zst before
code_of platter vma repack - z.zst <z.zst
code_of bash -c 'platter vma repack z.zst - 1<>z.zst'
code_of bash -c 'platter vma repack - - <z.zst >>z.zst'
cmp z.zst before
echo "--- an image, or an archive, into what it is made of"
cp a.raw before
code_of bash -c 'platter convert -f raw a.raw - >>a.raw'
code_of bash -c 'platter archive create --disk scsi0=a.raw -f raw - 1<>a.raw'
cmp a.raw before
echo "--- a window that needs more memory"
zstd -qc --long=27 <x.vma >long.zst
code_of platter vma repack long.zst new.zst 2>&1 | sed 's/134742016.*: raise/... raise/'
platter vma repack --memory 300M long.zst new.zst
zstd -qdc new.zst | cmp - x.vma
rm new.zst long.zst
echo "--- what cannot be done"
head -c 300000 x.vma.gz >cut.gz
code_of platter vma repack cut.gz new.zst
code_of platter vma repack nope new.zst
code_of platter vma repack x.vma .
code_of platter vma repack x.vma
code_of platter vma repack --compression xz x.vma new.xz
code_of platter vma repack --compression gzip --level 13 x.vma new.gz
echo "--- interrupted"
(yes 'what does not end' || true) | code_of timeout --foreground -s INT 2 platter vma repack - new.zst
left_here

echo '* digests of what was there before go with it'
truncate -s 1M old.raw
data 1M new.raw 5
platter archive create -q old.vma --digest -d disk=old.raw -f raw
platter archive create -q new.vma -d disk=new.raw -f raw
platter vma repack old.vma again.vma.zst
cp old.vma.platter.digest again.vma.zst.platter.digest
platter verify again.vma.zst | tail -1
platter vma repack new.vma again.vma.zst
platter verify again.vma.zst | tail -1
test ! -e again.vma.zst.platter.digest
