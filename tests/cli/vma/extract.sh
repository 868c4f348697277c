# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Everything into a new folder: configurations, disks in any order of clusters, the state of a machine
# with its zeros.
three_disks
archive x.vma -c qemu-server.conf='memory: 512
' -s 1 drive-scsi0=a.raw drive-scsi1=b.raw 5:vmstate=a.raw drive-scsi2=c.raw
platter vma extract x.vma out
cmp a.raw out/disk-drive-scsi0.raw
cmp b.raw out/disk-drive-scsi1.raw
cmp c.raw out/disk-drive-scsi2.raw
cat out/qemu-server.conf
truncate -s 768K a.raw # a state has whole clusters
cmp a.raw out/vmstate.bin
ls out
stat -c '%s %b' out/disk-drive-scsi1.raw
echo "--- the folder is there"
code_of platter vma extract x.vma out
echo "--- out of a pipe, packed, only some disks"
zstd -qc x.vma | platter vma extract -v -d drive-scsi2,drive-scsi1 - some | sed 's/duration.*/duration/; s/in [0-9.]* seconds/in N seconds/' | grep -v '^progress [1-9][0-9]*%.*' || true
ls some
code_of platter vma extract x.vma -d drive-scsi2,nope other
ls other
echo "--- what was begun is marked"
archive cut.vma -x 3 drive-scsi0=b.raw drive-scsi2=c.raw
code_of platter vma extract cut.vma cut
ls cut
code_of platter vma extract -d drive-scsi2 cut.vma other2
ls other2
