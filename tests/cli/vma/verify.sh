# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nothing is said where all is well; what is missing is found as well.
three_disks
archive x.vma -c qemu-server.conf=text -s 1 drive-scsi0=a.raw drive-scsi2=c.raw
platter vma verify x.vma
platter vma verify - <x.vma
zstd -qc x.vma | platter vma verify -
platter vma verify -v x.vma | sed 's/duration.*/duration/'
archive gap.vma -x 3 -x 4 -x 15 drive-scsi0=a.raw drive-scsi2=c.raw
code_of platter vma verify gap.vma
archive twice.vma -t 3 drive-scsi0=a.raw
code_of platter vma verify twice.vma
cp x.vma bad.vma
put 12900 '\x55' bad.vma
code_of platter vma verify bad.vma
code_of platter vma verify nope
