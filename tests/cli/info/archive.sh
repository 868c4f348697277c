# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What info says of an archive: of all of it and of one disk, whole, incomplete, damaged, compressed.
three_disks
truncate -s 100K state.raw
archive x.vma -c qemu-server.conf='memory: 512' -c qemu-server.fw='[OPTIONS]' -p 9 \
    drive-scsi0=a.raw 7:drive-virtio1=b.raw 3:vmstate=state.raw 255:drive-efidisk0=c.raw
of_file() { grep -v -e '^disk size' -e '"actual-size"'; }
platter info x.vma | of_file
platter info --output=json x.vma | of_file
platter info x.vma@drive-virtio1 | of_file
platter info --view drive-virtio1 --output=json x.vma | of_file

echo 'not complete'
archive holes.vma -x 3 -x 4 -x 5 -x 14 drive-scsi0=a.raw drive-virtio1=b.raw
platter info holes.vma | of_file

echo 'cut short'
head -c 300000 x.vma >cut.vma
platter info cut.vma | of_file
platter info --salvage cut.vma | of_file

echo 'compressed'
gzip -n x.vma
platter info x.vma.gz | of_file
platter info --output=json x.vma.gz@vmstate | of_file

echo 'nothing in it'
archive none.vma
platter info none.vma | of_file
