# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# One value for the same bytes, whatever the format and wherever the holes.
data 1M a.raw
truncate -s 40M a.raw
cp --sparse=never a.raw dense.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd a.raw b.qcow2
qemu-img convert -f raw -O vmdk a.raw a.vmdk
platter digest -q a.raw dense.raw a.qcow2 b.qcow2 a.vmdk
platter digest -m 1 -q a.raw
put 30000000 x a.raw
platter digest -q a.raw
