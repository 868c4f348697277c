# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive of disks and configurations, and the disks out of it again.
three_disks
mkdir folder
echo 'memory: 512' >folder/qemu-server.conf
: >empty.fw
platter convert -f raw -O qcow2 a.raw a.qcow2
platter vma create x.vma -v -c folder/qemu-server.conf -d format=qcow2:drive-scsi0=a.qcow2 -c empty.fw \
    -d drive-scsi1=b.raw -d format=raw:vmstate=c.raw 2>progress
grep -c -E '^progress [0-9]+% [0-9]+/1560576 [0-9]+$' progress >count
[ "$(cat count)" -ge 2 ]
tail -n 4 progress
platter vma list x.vma | sed 's/^CTIME.*/CTIME/'
platter vma verify x.vma
platter vma extract x.vma out >list
cmp out/disk-drive-scsi0.raw a.raw
cmp out/disk-drive-scsi1.raw b.raw
cmp -n 540672 out/vmstate.bin c.raw
cat out/qemu-server.conf
echo "--- disks without names, into a pipe and a FIFO"
platter vma create - a.raw named=a.qcow2 c.raw | platter vma extract - plain
cmp plain/disk-disk0.raw a.raw
cmp plain/disk-named.raw a.raw
cmp plain/disk-disk2.raw c.raw
mkfifo fifo
platter vma create fifo a.raw &
platter vma verify fifo
wait
echo "--- what is refused"
for args in '' 'x.vma a.raw' 'new -d x=a.raw b.raw' 'new -d a.raw' 'new -d format=raw' 'new -d format=nope:x=a.raw' \
    'new -d =a.raw' 'new x=a.raw x=b.raw' 'new nothing' 'new empty.fw' 'new -c nothing' 'exec:cat a.raw' \
    '/dev/fdname/x a.raw' 'nowhere/new a.raw' 'new vmstate=a.raw y=b.raw -c a.raw'; do
    # shellcheck disable=SC2086
    (code_of platter vma create $args 2>&1 | grep -v '^Try' || true) | sed "s|^|[$args] |"
done
left_here
