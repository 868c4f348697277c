# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What an archive has: configurations, disks by their number, and the date as the last line.
three_disks
archive x.vma -c qemu-server.conf='memory: 512
' -c qemu-server.fw= 9:drive-scsi0=a.raw 3:drive-scsi1=b.raw vmstate=c.raw
platter vma list x.vma
echo "--- out of a pipe, packed, in another zone"
zstd -q x.vma
TZ=EST5 platter vma list - <x.vma.zst | tail -1
echo "--- configurations"
platter vma config x.vma
platter vma config x.vma -c qemu-server.fw
code_of platter vma config -c nope x.vma
echo "--- nothing but a beginning is needed"
head -c 12800 x.vma | platter vma config -
echo "--- no archive"
code_of platter vma list a.raw
code_of platter vma list nope
head -c 100 x.vma | code_of platter vma list -
