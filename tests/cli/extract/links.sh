# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nothing in the folder leads out of it.
three_disks
mkdir out
echo mine >mine
archive x.vma -c conf=text drive-scsi0=a.raw drive-scsi1=b.raw
for link in conf drive-scsi0.raw drive-scsi1.raw; do
    for to in ../mine ../nowhere; do
        ln -s $to out/$link
        code_of platter extract -o out x.vma
        ls out
        rm out/$link
    done
done
cat mine
left_here
