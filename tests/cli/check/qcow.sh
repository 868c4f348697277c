# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow of version 1, which nobody else checks: what a crashed QEMU leaves, two clusters in one
# place, space of nobody; and that of a backing file nothing is said.
data 300K a.raw
platter convert -f raw -O qcow a.raw good.qcow
code_of platter check good.qcow
code_of platter check --output=json good.qcow
platter convert -c -f raw -O qcow a.raw packed.qcow
code_of platter check --data packed.qcow
platter create -q -f qcow -b a.raw -F raw over.qcow
code_of platter check over.qcow

# A table that would follow on the end of the file.
truncate -s 3M late.raw
platter create -q -f qcow late.qcow 3M
put 48 '\0\0\0\0\0\0\x10\0' late.qcow
code_of platter digest late.qcow
code_of platter check -q late.qcow
code_of platter check -r all late.qcow
platter compare -f qcow -F raw late.qcow late.raw

# The second cluster of the disk stands where the first does; what it led to is lost space.
cp good.qcow shared.qcow
dd if=good.qcow of=shared.qcow bs=8 skip=512 seek=513 count=1 conv=notrunc status=none
code_of platter check shared.qcow
code_of platter check -r leaks shared.qcow
code_of platter check -r all shared.qcow
code_of platter check shared.qcow

# No header to go by.
put 32 '\x20' good.qcow
code_of platter check good.qcow
