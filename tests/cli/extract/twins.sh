# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Configurations of one name: an error, or with --salvage all of them, under names that differ.
data 100K a.raw 1
archive twins.vma -c same=first -c same~2=other -c same=second -c same=third drive-scsi0=a.raw
code_of platter extract -o none twins.vma
[ ! -e none ]
code_of platter extract --salvage -o out twins.vma
for name in same same~2 same~3 same~4; do
    echo "$name: $(<out/$name)"
done
cmp a.raw out/drive-scsi0.raw
left_here
