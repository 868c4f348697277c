# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Into what is there already, of any format, as large as it is or larger.
three_disks
archive x.vma -s 1 drive-scsi0=a.raw drive-scsi1=b.raw
repeated 10M old >full
cp full t.raw
platter extract -d drive-scsi0 -n x.vma t.raw
cmp -n 757760 a.raw t.raw
cmp -i 757760 full t.raw
echo "--- where it reads as zeros they are not written"
cp full t.raw
platter extract -q -d drive-scsi0 -n --target-is-zero x.vma t.raw
cmp -i 400000 -n 100000 full t.raw
echo "--- an image is found by its content, or named"
platter create -q -f qcow2 t.qcow2 1M
platter extract -q -d drive-scsi0 -n x.vma t.qcow2
platter info t.qcow2 | grep format:
platter compare t.qcow2 a.raw
platter check -q t.qcow2
cp full t.img
code_of platter extract -q -d drive-scsi0 -n -O qcow2 x.vma t.img
cmp t.img full
echo "--- one that is too small, that is not there"
truncate -s 700K t.raw
code_of platter extract -d drive-scsi0 -n x.vma t.raw
code_of platter extract -d drive-scsi0 -n x.vma nope.raw
code_of platter extract -d drive-scsi0 -n x.vma x.vma
