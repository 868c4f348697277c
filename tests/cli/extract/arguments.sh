# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What does not go together.
truncate -s 64K a.raw
archive x.vma -c conf=text drive-scsi0=a.raw
for args in '' 'x.vma a b' 'x.vma t.raw' '-o out -d drive-scsi0 x.vma t.raw' \
    '-d drive-scsi0 -c conf x.vma t.raw' '-d drive-scsi0 --config x.vma t.raw' '-n x.vma' \
    '-n -o out -d drive-scsi0 x.vma' '-d drive-scsi0 --target-is-zero x.vma t.raw' \
    '-d drive-scsi0 -n --options preallocation=off x.vma t.raw' '--uuid 00 x.vma' \
    '-d drive-scsi0 -n x.vma -' '-d drive-scsi0 --output=json x.vma -' '-t never x.vma' \
    '--salvage --uuid 00 x.vma' '-d drive-scsi0 -d drive-scsi0 x.vma t.raw'; do
    # shellcheck disable=SC2086
    (code_of platter extract $args 2>&1 | grep -v '^Try' || true) | sed "s/^/[$args] /"
done
left_here
echo "--- twice the same is once"
platter extract -d drive-scsi0 -d drive-scsi0 -o out x.vma
