# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
platter create -q -f qcow2 b.qcow2 1M
platter convert -n -f raw -O qcow2 a.raw b.qcow2
qemu-img compare a.raw b.qcow2
qemu-img check b.qcow2 | head -1
data 1M c.raw 2
platter convert -n -f raw -O raw a.raw c.raw
cmp a.raw c.raw
truncate -s 0 c.raw
truncate -s 1M c.raw
platter convert -n --target-is-zero -f raw -O raw a.raw c.raw
cmp a.raw c.raw
truncate -s 1000k c.raw
code_of platter convert -n -f raw -O raw a.raw c.raw
code_of platter convert -n -f raw -O raw a.raw nope.raw
left_here
