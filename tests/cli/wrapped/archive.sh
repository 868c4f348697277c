# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The disks of a compressed archive are views like those of any other.
three_disks
archive x.vma -s 3 -c qemu-server.conf='memory: 512' drive-scsi0=a.raw drive-scsi1=b.raw drive-scsi2=c.raw
zstd -qk x.vma
gzip -k x.vma
lzop -q x.vma
bzip2 -k x.vma
xz -k x.vma
platter vma repack -q x.vma x.again
for archive in x.vma.* x.again; do
    echo "--- $archive"
    platter info "$archive" | grep '^compressed\|drive'
    platter convert -O raw "$archive@drive-scsi0" a.out
    cmp a.raw a.out
    platter convert -O qcow2 "$archive@drive-scsi2" c.out
    platter compare -q -f raw c.raw c.out
    platter compare -f raw b.raw "$archive@drive-scsi1"
done
