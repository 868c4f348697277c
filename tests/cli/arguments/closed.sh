# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Standard descriptors that are closed: what should come from one, or go to one, is not lost in silence.
data 100K a.raw
code_of bash -c 'platter convert -f raw a.raw - >&-'
code_of bash -c 'platter vma repack a.raw - >&-'
code_of bash -c 'platter archive create --disk scsi0=a.raw -f raw -q - >&-'
code_of bash -c 'platter info -f raw a.raw >&-'
code_of bash -c 'platter vma repack - new.zst <&-'
echo "--- where nothing is read or printed nobody minds"
code_of bash -c 'platter convert -f raw a.raw b.raw <&- >&- 2>&-'
cmp a.raw b.raw
left_here
