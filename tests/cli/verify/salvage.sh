# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Behind damage of any size, at any offset, and without a beginning.
three_disks
archive x.vma -c conf=text -p 4 -s 1 drive-scsi0=a.raw drive-scsi2=c.raw
echo "--- bytes less, and bytes more"
{
    head -c 100000 x.vma
    tail -c +100778 x.vma
} >less.vma
code_of platter verify less.vma
data 777 junk
{
    head -c 100000 x.vma
    cat junk
    tail -c +100001 x.vma
} >more.vma
code_of platter verify --salvage more.vma
echo "--- no beginning: from a file, and from a pipe"
tail -c +12801 x.vma >lost.vma
code_of platter verify lost.vma
code_of platter verify --salvage lost.vma
code_of platter verify --salvage - <lost.vma
cat lost.vma | code_of platter verify --salvage -
echo "--- a beginning with holes: the disks are known"
cp x.vma part.vma
put 0 'nothing here' part.vma
code_of platter verify --salvage part.vma
echo "--- whose it is"
uuid=$(platter info --output=json x.vma | python3 -c 'import json, sys
print(json.load(sys.stdin)["format-specific"]["data"]["uuid"])')
code_of platter verify --salvage --uuid "$uuid" lost.vma | tail -1
code_of platter verify --salvage --uuid 00000000-0000-0000-0000-000000000000 lost.vma
code_of platter verify --salvage --uuid 12 lost.vma
code_of platter verify --uuid "$uuid" lost.vma
echo "--- nothing of an archive at all"
code_of platter verify --salvage a.raw
