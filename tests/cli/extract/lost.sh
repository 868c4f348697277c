# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive without its beginning: disks are called after their numbers, and have whole clusters.
three_disks
archive x.vma -c conf=text -s 1 drive-scsi0=a.raw 7:drive-scsi2=c.raw
data 12800 junk 9
dd if=junk of=x.vma conv=notrunc status=none
code_of platter extract -o no x.vma
code_of platter extract --salvage -o out x.vma
cmp out/device-1.raw <(cat a.raw; head -c 28672 /dev/zero)
cmp -n 540672 out/device-7.raw c.raw
ls out
echo "--- by its uuid"
code_of platter extract -q --salvage --uuid 00010203-0405-0607-0809-0a0b0c0d0e0f -O qcow2 -o named x.vma
platter compare -q named/device-1.qcow2 out/device-1.raw
code_of platter extract -q --salvage --uuid 10010203-0405-0607-0809-0a0b0c0d0e0f -o other x.vma
echo "--- out of a pipe they have to be named"
code_of platter extract --salvage -o no - <x.vma
code_of platter extract -q --salvage -d device-7 -O qcow2 -o piped - <x.vma
platter compare -q piped/device-7.qcow2 out/device-7.raw
left_here
