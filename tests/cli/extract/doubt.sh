# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What comes out of a damaged part of a compressed file may be wrong: without --salvage there is nothing,
# with it that is told by disk and range, and by the exit code, though nothing is missing.
data 4M a.raw 1
data 1M b.raw 2
truncate -s 2M b.raw
archive x.vma -c conf=text drive-scsi0=a.raw drive-scsi1=b.raw

# flip OFFSET FILE: changes a bit; of negative offsets from the end.
flip() {
    python3 -c 'import sys
data = bytearray(open(sys.argv[2], "rb").read())
data[int(sys.argv[1])] ^= 1
open(sys.argv[2], "wb").write(data)' "$@"
}

# told FILE: what becomes of it.
told() {
    echo "--- $1: without --salvage"
    code_of platter extract -o none "$1"
    [ ! -e none ]
    echo "--- with it"
    code_of platter extract --salvage -o out "$1"
    rm -r out
    code_of platter verify "$1"
}

zstd -q x.vma -o sum.zst
flip -1 sum.zst
told sum.zst
echo "--- zeros have no data that could be wrong, and configurations a checksum of their own"
code_of platter extract --salvage --config -o conf sum.zst
code_of platter extract --salvage --output=json -d drive-scsi1 -o json sum.zst
cmp b.raw json/drive-scsi1.raw
gzip -nk x.vma
flip -8 x.vma.gz
told x.vma.gz
echo "--- only the frame that is damaged"
for part in 0 1 2 3 4; do
    dd if=x.vma bs=1M skip=$part count=$((part == 4 ? 9 : 1)) status=none | zstd -qc
done >frames.zst
flip 2500000 frames.zst
told frames.zst
echo "--- what stands in front of an end that comes too early was not checked either"
zstd -q x.vma -o whole.zst
head -c 3000000 whole.zst >cut.zst
told cut.zst
