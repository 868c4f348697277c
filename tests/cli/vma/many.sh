# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# As many disks and configurations as there can be.
data 1020K all
split -a 3 --numeric-suffixes=1 -b 4K --additional-suffix=.raw all d
set --
for i in {001..255}; do set -- "$@" "$((10#$i)):disk$i=d$i.raw"; done
for i in $(seq 1 256); do set -- "$@" -c "conf$i=$i"; done
archive x.vma -s 1 "$@"
platter vma list x.vma | count DEV
platter vma extract x.vma out | count DEVINFO
cat out/disk-disk*.raw | cmp - all
cat out/conf256
find out -type f | wc -l
rm -r out
platter extract -q -o out -O qcow2 x.vma
for i in 001 128 255; do platter compare -q -f raw "d$i.raw" "out/disk$i.qcow2"; done
find out -type f | wc -l

echo "--- made"
set --
for i in {001..254}; do set -- "$@" -d "disk$i=d$i.raw"; done
for i in $(seq 1 257); do
    echo "$i" >"conf$i"
    [ "$i" = 257 ] || set -- "$@" -c "conf$i"
done
platter vma create made.vma "$@"
platter vma list made.vma | count DEV
platter vma list made.vma | count CFG
platter vma config -c conf256 made.vma
code_of platter vma create more.vma "$@" -c conf257 2>&1
code_of platter vma create more.vma "$@" -d disk255=d255.raw 2>&1
test ! -e more.vma
