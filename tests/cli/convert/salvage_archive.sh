# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk of an archive whose header is damaged: with --salvage it is what the extents say.
data 1M a.raw 1
data 512K b.raw 2
archive x.vma -p 7 -c conf=text drive-scsi0=a.raw drive-scsi1=b.raw
cp x.vma before.vma

# hurt FILE OFFSET HEX: a copy of the archive with these bytes there.
hurt() {
    cp x.vma "$1"
    printf '%s' "$3" | xxd -r -p | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
# one FILE VIEW SOURCE: what becomes of a disk.
one() {
    echo "--- $1@$2"
    code_of platter convert --salvage -f vma -O raw "$1@$2" out.raw
    [ ! -e out.raw ] || { cmp out.raw "$3" && rm out.raw && echo 'as it was'; }
}

hurt bit.vma 4100 01
hurt fields.vma 60 0102030405060708
hurt table.vma 4096 "$(printf 'ff%.0s' {1..200})"
hurt all.vma 0 "$(printf '00%.0s' {1..12800})"
echo '--- without --salvage'
code_of platter convert -f vma -O raw fields.vma@drive-scsi1 out.raw
one bit.vma drive-scsi1 b.raw
one fields.vma drive-scsi1 b.raw
one table.vma drive-scsi1
one table.vma device-2 b.raw
one all.vma 1 a.raw
# All of the header is gone: the first extent stands at 0.
tail -c "+$(($(grep -abo VMAE x.vma | head -n1 | cut -d: -f1) + 1))" x.vma > gone.vma
one gone.vma device-1 a.raw
echo '--- extents are damaged as well'
hurt both.vma 0 "$(printf '00%.0s' {1..12800})"
printf 'rubbish' | dd of=both.vma bs=1 seek=12900 conv=notrunc status=none
platter convert --salvage -f vma -O raw both.vma@device-1 out.raw 2>err || echo "exit code $?"
sed 's/[0-9][0-9]*/N/g' err
cmp -n 589824 -i 458752 out.raw a.raw && echo 'what is there is as it was'
echo '--- what there is'
platter info --salvage -f vma --output=json all.vma | jq -c '."format-specific".data.devices[]'
cmp x.vma before.vma
