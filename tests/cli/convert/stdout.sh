# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 5M a.raw
platter convert -f raw -O raw a.raw - | cmp - a.raw
platter convert -f raw -O vmdk -o subformat=streamOptimized a.raw - >b.vmdk
qemu-img compare a.raw b.vmdk
# Progress goes out of the way.
platter convert -p -f raw -O raw a.raw - 2>progress | cmp - a.raw
tr '\r' '\n' <progress | tail -1
code_of platter convert -f raw -O qcow2 a.raw - >>exits
code_of platter convert -f raw -n -O raw a.raw - >>exits
code=0
platter convert -f raw -O raw a.raw - >/dev/full || code=$?
echo "exit code $code"
cat exits
left_here
