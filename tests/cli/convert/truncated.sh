# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Data that the tables speak of and the file does not hold.
data 1M a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
head -c 900k a.qcow2 >cut.qcow2
code_of platter convert -O raw cut.qcow2 b.raw
platter convert -f raw -O vmdk -o subformat=streamOptimized a.raw a.vmdk
head -c 500k a.vmdk >cut.vmdk
code_of platter convert -O raw cut.vmdk b.raw
platter convert -f raw -O vmdk a.raw a.vmdk
head -c 500k a.vmdk >cut.vmdk
code_of platter convert -O raw cut.vmdk b.raw
left_here
