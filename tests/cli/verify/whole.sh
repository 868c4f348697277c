# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is whole: from a file, a pipe, and compressed; several at once.
three_disks
archive x.vma -c conf=text -p 5 -s 1 drive-scsi0=a.raw drive-scsi1=b.raw drive-scsi2=c.raw
gzip -k x.vma
platter verify x.vma x.vma.gz
platter verify -q x.vma
platter verify --salvage x.vma
platter verify --data -m 3 x.vma | tail -1
platter verify - <x.vma | tail -1
cat x.vma.gz | platter verify -
echo "--- a state of the machine"
archive state.vma -s 2 drive-scsi0=a.raw 9:vmstate=c.raw
platter verify state.vma
echo "--- configurations alone"
archive none.vma -c conf=text
platter verify none.vma
left_here
