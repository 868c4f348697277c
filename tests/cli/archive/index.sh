# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The index beside an archive: written, used, and not used where it does not fit.
three_disks
archive x.vma -s 1 -p 5 drive-scsi0=a.raw drive-efidisk0=c.raw
platter archive index x.vma
platter info x.vma | grep extents
platter compare -F raw x.vma@drive-scsi0 a.raw
platter archive index -q -o other x.vma
cmp other x.vma.index

echo 'it does not fit any more'
archive x.vma -s 2 -p 5 drive-scsi0=a.raw drive-efidisk0=c.raw
platter info x.vma | grep extents
platter compare -F raw x.vma@drive-scsi0 a.raw
platter archive index x.vma
platter info x.vma | grep extents

echo 'it is damaged'
put 4100 '\x7f' x.vma.index
platter info x.vma | grep extents
platter compare -F raw x.vma@drive-efidisk0 c.raw

echo 'what is no index stays'
cp x.vma before
code_of platter archive index -o a.raw x.vma
code_of platter archive index -o x.vma x.vma
cmp x.vma before
rm -f x.vma.index

echo 'no index of what is no archive, or a damaged one'
platter create -q -f qcow2 a.qcow2 1M
code_of platter archive index a.qcow2
code_of platter archive index nothing
head -c 300000 x.vma >cut.vma
code_of platter archive index cut.vma
code_of platter archive index
code_of platter archive index x.vma x.vma

echo 'of a compressed one that can be read anywhere'
zstd -q x.vma
mv x.vma whole
platter vma repack -q x.vma.zst again.vma.zst
platter archive index again.vma.zst
platter info again.vma.zst | grep extents
platter compare -F raw again.vma.zst@drive-efidisk0 c.raw
left_here
echo "what has no name"
code_of platter archive index - < <(cat whole)
platter archive index -o named.index - < <(cat whole)
left_here | count "^-"
