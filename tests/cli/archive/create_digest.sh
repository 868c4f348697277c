# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Digests of the data, in the archive or beside it: of one pass or two they are the same.
data 3M part
truncate -s 40M disk.raw
dd if=part of=disk.raw bs=1M seek=15 conv=notrunc status=none
data 100001 small.raw 2

make() {
    platter archive create -q --reproducible "$@" -d drive-scsi0=disk.raw -d small=small.raw -f raw
}

echo '* beside'
make beside.vma --digest
jq -c '.disks[] | [.name, .size, .digest]' beside.vma.platter.digest
platter digest -f raw disk.raw small.raw
platter digest -f raw --nodes disk.raw | head -3 | cut -d' ' -f3 | xxd -r -p | base64 -w0 >nodes
jq -j '.disks[0].nodes' beside.vma.platter.digest | cmp - nodes
platter verify beside.vma

echo '* inside'
make inside.vma --embed-digest
make - --embed-digest | cmp - inside.vma
make inside.vma.gz --embed-digest
gzip -dc inside.vma.gz | cmp - inside.vma
platter vma config -c platter.digest inside.vma | cmp - beside.vma.platter.digest
platter verify inside.vma

echo '* damage'
for archive in beside.vma inside.vma; do
    put "$(($(stat -c %s "$archive") - 5000))" '\0\0\0\0' "$archive"
    code_of platter verify "$archive"
done

echo '* the two appear together'
make beside.vma --digest
platter verify beside.vma | tail -1
mkdir folder.vma.platter.digest
code_of make folder.vma --digest
left_here

echo '* older digests do not outlive their archive'
platter archive create -q beside.vma -d other=small.raw -f raw
platter verify beside.vma
ln -s part linked.vma.platter.digest
code_of make linked.vma
rm linked.vma.platter.digest
ln small.raw source.vma.platter.digest
code_of make source.vma
left_here

echo '* too large for the inside'
truncate -s 200G vast.raw
code_of platter archive create -q vast.vma --embed-digest -d vast=vast.raw -f raw
code_of platter archive create -q - --digest -d vast=vast.raw -f raw
truncate -s 170G vast.raw
platter archive create -q vast.vma --embed-digest -d vast=vast.raw -f raw
platter verify vast.vma
platter vma list vast.vma | count CFG
rm vast.raw
