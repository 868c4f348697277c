# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk is the same in every format, also those that are written front to back.
three_disks
archive x.vma -s 1 drive-scsi0=a.raw drive-scsi1=b.raw drive-scsi2=c.raw 5:vmstate=b.raw
n=0
try() {
    n=$((n + 1))
    mkdir $n
    echo "$*"
    platter extract -q -o $n "$@" x.vma
    for disk in "$n"/drive-scsi0.*; do platter compare -q "$disk" a.raw; done
    ls $n
}
try -O qcow2
try -O qcow2 --options cluster_size=2M,preallocation=metadata
try -O qcow2 --options extended_l2=on,cluster_size=32k -m 8
try -O qcow2 --options data_file=data.bin,data_file_raw=on -d drive-scsi0
try -O qcow2 --compress
try -O vmdk
try -O vmdk --options subformat=streamOptimized -d drive-scsi0 -d drive-scsi2
try -O vmdk --options subformat=twoGbMaxExtentSparse
try -O raw --options preallocation=full -d drive-scsi0
[ "$(stat -c %b 9/drive-scsi0.raw)" -ge 1480 ]
try -O raw -m 1
qemu-img check -q 1/drive-scsi0.qcow2
platter digest a.raw 1/drive-scsi0.qcow2 2/drive-scsi0.qcow2 5/drive-scsi0.qcow2 6/drive-scsi0.vmdk \
    7/drive-scsi0.vmdk 9/drive-scsi0.raw 2>/dev/null | cut -d' ' -f1 | uniq -c
echo "--- what a format cannot do"
code_of platter extract -O raw --compress x.vma -d drive-scsi0 c.raw
code_of platter extract -O nope x.vma -d drive-scsi0 c.raw
code_of platter extract -O qcow2 --options nope=1 x.vma -d drive-scsi0 c.raw
platter extract --options help x.vma | head -1
left_here | grep -v '^[0-9]'
