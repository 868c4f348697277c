# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Two disks of one name: refused before there is a file of either.
data 100K a.raw 1
data 100K b.raw 2
archive twins.vma -c qemu-server.conf=text 1:same=a.raw 2:same=b.raw 3:own=a.raw
code_of platter vma extract twins.vma out
left_here
rm -r out
code_of platter vma extract twins.vma out -d own
cmp a.raw out/disk-own.raw
left_here
