# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Two disks of one name cannot be extracted by it: that is a fault, and a salvage tells them apart.
data 200K a.raw 1
data 100K b.raw 2
archive x.vma -c conf=text disk=a.raw disk=b.raw
code_of platter verify x.vma
code_of platter verify --salvage x.vma
code_of platter vma verify x.vma
code_of platter extract -o no x.vma
[ ! -e no ]
code_of platter extract --salvage -o out x.vma
cmp a.raw out/disk.raw
cmp b.raw out/device-2.raw
echo "--- a damaged beginning of a compressed archive gives what it has"
data 40K small.raw 3
archive y.vma -c conf=text disk=small.raw
for program in gzip xz; do
    $program -qc y.vma >whole
    head -c 20000 whole >"y.$program"
    code_of platter verify "y.$program"
    code_of platter extract --salvage -q -o "$program" "y.$program"
    cat "$program/conf"
    echo
done
code_of platter vma config -c conf y.gzip
