# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Partitions, folders, and what was not meant to be listed.
export E2FSPROGS_FAKE_TIME=1700000000
mkdir -p tree/etc tree/var/log
printf 'a line\n' >tree/etc/fstab
printf 'odd' >"tree/etc/$(printf 'a\033[31mname\n')"
ln -s ../etc/fstab tree/var/link
chmod 600 tree/etc/fstab
find tree -exec touch -h -d '2023-11-14 22:13:20' {} +
truncate -s 24M a.raw
sfdisk -q a.raw <<'TABLE'
label: gpt
label-id: 11111111-1111-1111-1111-111111111111
start=2048, size=8192, type=U, uuid=22222222-2222-2222-2222-222222222222, name="EFI"
start=10240, size=16384, type=L, uuid=33333333-3333-3333-3333-333333333333
start=26624, size=8192, type=S, uuid=44444444-4444-4444-4444-444444444444
TABLE
truncate -s 4M fat
mkfs.vfat -i 12345678 -n BOOT fat >/dev/null
mcopy -m -i fat tree/etc/fstab ::FSTAB.TXT
truncate -s 8M ext
mke2fs -q -t ext4 -L root -U 55555555-5555-5555-5555-555555555555 -E root_owner=0:0 -d tree ext
for inode in 2 12 13 14 15 16 17; do
    printf 'sif <%s> uid 1000\nsif <%s> gid 0\n' $inode $inode
done | debugfs -w -f /dev/stdin ext >/dev/null 2>&1
dd if=fat of=a.raw bs=1M seek=1 conv=notrunc status=none
dd if=ext of=a.raw bs=1M seek=5 conv=notrunc status=none
platter convert -f raw -O qcow2 a.raw a.qcow2

platter ls a.qcow2
platter ls --output=json a.qcow2
echo "--- folders"
platter ls -R --partition 1 a.qcow2
platter ls -R a.qcow2 /
platter ls a.qcow2 /etc/../etc/
platter ls a.qcow2 /var/link
platter ls --output=json a.qcow2 /etc/fstab | sed "s/, .inode.: [0-9]*//"
platter ls --output=json a.qcow2 /var/log
echo "--- none of these"
code_of platter ls
code_of platter ls a.qcow2 etc
code_of platter ls a.qcow2 /nothing/here
code_of platter ls --partition 3 a.qcow2
code_of platter ls --partition 9 a.qcow2
code_of platter ls --partition x a.qcow2
code_of platter ls --no-libguestfs --partition /dev/group/volume a.qcow2
code_of platter ls -q -f raw /dev/null
truncate -s 1M zeros
code_of platter ls -f raw zeros /
platter ls -f raw zeros
