# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Names that do no harm to a terminal or to who reads the lines, and none to a folder.
truncate -s 4K a.raw
archive lines.vma -c $'x\nDEV: dev_id: y'=text $'\e[2J'=a.raw
platter vma list lines.vma
code_of platter vma extract lines.vma out
ls out
for name in ../x /etc/x .. . 'a\b' $'new\nline' "$(printf 'x%.0s' {1..256})"; do
    rm -rf out
    archive bad.vma -c "$name=text" drive-scsi0=a.raw
    code_of platter vma extract bad.vma out 2>&1 | cut -c1-90
    archive bad.vma -c fine=text "$name=a.raw"
    code_of platter vma extract bad.vma out2 2>&1 | cut -c1-90
    rm -r out2
    ls out
done
left_here
echo "--- where a map says where it goes, the name of a disk is only a name"
archive bad.vma ../x=a.raw
echo '0:../x=t.raw' >map
truncate -s 4K t.raw
platter vma extract bad.vma -r map out3
left_here
