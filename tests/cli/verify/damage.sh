# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Each damage has its line, and the exit code is 2.
three_disks
archive x.vma -p 4 drive-scsi0=a.raw drive-scsi2=c.raw
echo "--- the header of an extent"
cp x.vma bad.vma
put $((12800 + 100)) '\x55\x55' bad.vma
code_of platter verify bad.vma
echo "--- cut off in an extent, behind one, in a pipe"
head -c 700000 x.vma >cut.vma
code_of platter verify cut.vma
head -c 12800 x.vma | code_of platter verify -
echo "--- something behind the end"
cp x.vma tail.vma
head -c 100 /dev/zero >>tail.vma
code_of platter verify tail.vma
head -c 100000 /dev/zero >>tail.vma
code_of platter verify tail.vma
echo "--- compressed and cut off"
gzip -k x.vma
head -c 500000 x.vma.gz >cut.gz
code_of platter verify cut.gz
echo "--- the beginning"
cp x.vma bad.vma
put 100 'x' bad.vma
code_of platter verify bad.vma
head -c 10000 x.vma >short.vma
code_of platter verify short.vma
echo "--- the worst of several counts"
code_of platter verify -q x.vma cut.vma nope.vma
code_of platter verify -q x.vma nope.vma
