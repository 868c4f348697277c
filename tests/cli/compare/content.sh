# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
for at in 0 512 1048064 3145728 4193792; do
    cp a.raw b.raw
    put $at DIFFERENT b.raw
    same compare -f raw -F raw a.raw b.raw
    same compare -f raw -F raw b.raw a.raw
done
same compare -q -f raw -F raw a.raw b.raw
code_of platter compare -f raw -F raw a.raw b.raw
