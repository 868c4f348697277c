# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What cannot be an archive is refused, and nothing is left of it.
truncate -s 1M a.raw
: >empty.raw
head -c 70000 /dev/zero >large.conf
mkdir folder

make() {
    code_of platter archive create -q -f raw "$@"
}

make out.vma
make
make out.vma -d a.raw
make out.vma -d =a.raw
make out.vma -d 'a b=a.raw'
make out.vma -d ../a=a.raw
make out.vma -d a=a.raw -d a=a.raw
make out.vma -d vmstate=a.raw
make out.vma -d a=empty.raw
make out.vma -d a=not-there.raw
make out.vma -d a=a.raw -c not-there.conf
make out.vma -d a=a.raw -c large.conf
make out.vma -d a=a.raw -c ../x=empty.raw
make out.vma -d a=a.raw -c x=empty.raw -c x=empty.raw
make out.vma.lzo -d a=a.raw
make out.vma -d a=a.raw --level 5
make out.vma -d a=a.raw --uuid 123
make out.vma -d a=a.raw --time yesterday
make out.vma -d a=a.raw --time '2023-02-31 00:00:00'
for time in ' 5' +5 '5 ' - '' ' 2023-11-14 22:13:20' '2023-11-14  2:13:20' '2023-11-14 22:13:20 ' '2023-+1-14 22:13:20'; do
    make out.vma -d a=a.raw "--time=$time"
done
make folder -d a=a.raw
make folder -d a=a.raw --vmid 99
make a.raw -d a=a.raw
make out.vma -d a=a.raw -t nonsense
for epoch in soon ' 5' +5 '5 ' -5 99999999999999999999; do
    SOURCE_DATE_EPOCH=$epoch make out.vma --reproducible -d a=a.raw
done
cp a.raw out.vma.platter.digest
make out.vma --digest -d a=out.vma.platter.digest
cmp a.raw out.vma.platter.digest
printf 'cores: 1\n' >own.conf
make own.conf -d a=a.raw -c own.conf
make own.conf -d a=a.raw -c x=./own.conf
cp own.conf out.vma.platter.digest
make out.vma -d a=a.raw -c x=out.vma.platter.digest
make out.vma --digest -d a=a.raw -c x=out.vma.platter.digest
cat own.conf out.vma.platter.digest
rm own.conf
echo there >out.vma
make out.vma --exclusive -d a=a.raw
cat out.vma
left_here
cmp -n 1048576 a.raw /dev/zero
