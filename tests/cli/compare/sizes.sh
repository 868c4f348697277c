# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
cp a.raw b.raw
truncate -s 4M b.raw
same compare -f raw -F raw a.raw b.raw
same compare -f raw -F raw b.raw a.raw
same compare -q -f raw -F raw a.raw b.raw
same compare -s -f raw -F raw a.raw b.raw
put 2097152 x b.raw
same compare -f raw -F raw a.raw b.raw
same compare -f raw -F raw b.raw a.raw
same compare -s -f raw -F raw a.raw b.raw
code_of platter compare -f raw -F raw a.raw b.raw
