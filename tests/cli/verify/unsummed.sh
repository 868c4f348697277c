# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A compressed file without checksums: that is told once, and no fault.
data 300K a.raw 1
archive x.vma drive-scsi0=a.raw

# told FILE: whether it is, in each form.
told() {
    echo "--- $1"
    platter verify "$1"
    platter verify --output=json "$1" >out
    python3 -c 'import json
a = json.load(open("out"))
print(a["whole"], a["fault-count"], [(f["kind"], f["text"]) for f in a["faults"]])'
}

for part in 0 1 2 3; do
    dd if=x.vma bs=100K skip=$part count=1 status=none | zstd -qc --no-check
done >none.zst
xz -0c --check=none x.vma >none.xz
lzop -Fqc x.vma >none.lzo
zstd -qc x.vma >sum.zst
xz -0c --check=crc32 x.vma >sum.xz
lzop -qc x.vma >sum.lzo
gzip -1c x.vma >sum.gz
bzip2 -1c x.vma >sum.bz2
for file in none.* sum.*; do told "$file"; done
