# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# One disk or one configuration, to a target of its own.
three_disks
archive x.vma -c qemu-server.conf='memory: 512
' -c ../evil=evil -s 1 drive-scsi0=a.raw drive-scsi1=b.raw ../drive=c.raw 9:vmstate=b.raw
platter extract -d drive-scsi0 x.vma t.raw
cmp a.raw t.raw
echo "--- in place of what was there"
echo old >t.qcow2
platter extract -d drive-scsi0 -O qcow2 x.vma t.qcow2
platter compare -q t.qcow2 a.raw
echo "--- by a name that is no name of a file"
code_of platter extract -d ../drive x.vma
platter extract -d ../drive x.vma t.raw
cmp c.raw t.raw
platter extract -d vmstate x.vma t.raw
cmp b.raw t.raw
echo "--- configurations"
platter extract -c qemu-server.conf x.vma -
platter extract -c ../evil x.vma evil
cat evil
code_of platter extract -c ../evil x.vma evil
code_of platter extract -c ../evil x.vma
echo "--- to standard output"
platter extract -d drive-scsi0 x.vma - | cmp - a.raw
platter extract -p -d drive-scsi0 -O vmdk --options subformat=streamOptimized x.vma - >t.vmdk 2>progress
platter compare -q t.vmdk a.raw
tail -c 20 progress | tr -d '\r'
code_of platter extract -d drive-scsi0 - - <x.vma | tail -1
echo "--- what is not there"
code_of platter extract -d nope x.vma
code_of platter extract -c nope x.vma
code_of platter extract -d nope x.vma nope.raw
code_of platter extract -o out/there x.vma
code_of platter extract nope.vma
left_here
echo "--- two configurations of one name"
archive twins.vma -c same=1 -c same=2 drive-scsi0=a.raw
code_of platter extract -c same twins.vma -
code_of platter extract -c same twins.vma same
[ ! -e same ]
rm twins.vma
