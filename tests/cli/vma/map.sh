# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A map says where disks go: into images that are there, whose formats and sizes have to fit.
three_disks
archive x.vma -c qemu-server.conf=text -s 1 drive-scsi0=a.raw drive-scsi1=b.raw drive-scsi2=c.raw \
    vmstate=b.raw
repeated 4836K old >full # as large as may be: 740 KiB and 4 MiB
targets() {
    rm -rf out
    cp full t0.raw
    platter create -q -f qcow2 t1.qcow2 300K
    repeated 528K old >t2
}
targets
echo "--- every option, in any order; the last line of a name counts; what is not there is passed over"
mkfifo fifo
{
    echo 'skip=drive-scsi0'
    echo 'throttling.group=g:cache=writeback:format=raw:throttling.bps=100000000:1:drive-scsi0=t0.raw'
    echo 'format=qcow2:0:drive-scsi1=t1.qcow2'
    echo '0:nobody=nowhere'
    echo 'format=raw:1:drive-scsi2=t2'
    echo 'done'
    echo 'this is not read'
} >fifo &
platter vma extract x.vma -r fifo out
wait
cmp -n 757760 a.raw t0.raw
cmp -i 757760 full t0.raw
platter compare -f raw b.raw t1.qcow2
cmp c.raw t2
ls out
cmp b.raw out/vmstate.bin
echo "--- zeros are left alone where the target is known to have them"
targets
printf '0:drive-scsi0=t0.raw\nskip=drive-scsi1\nskip=drive-scsi2\nskip=vmstate\n' >map
platter vma extract x.vma -r map out >list
cmp -i 400000 -n 100000 full t0.raw
ls out
echo "--- the end of the map is an empty line, or its end"
targets
printf '0:drive-scsi0=t0.raw\n\nnonsense\n' >map
code_of platter vma extract -d drive-scsi0 x.vma -r map out >list
tail -n 1 list
echo "--- lines that make no sense"
for line in nonsense '2:drive-scsi0=t0.raw' '0:drive-scsi0' '0:=t0.raw' '0:drive-scsi0=' 'format=raw' \
    'format=raw:format=raw:0:drive-scsi0=t0.raw' 'format=:0:drive-scsi0=t0.raw' 'skip=' \
    'throttling.bps=many:0:drive-scsi0=t0.raw' 'cache=never:0:drive-scsi0=t0.raw' 'done ' \
    'format=nope:0:drive-scsi0=t0.raw' 'format=qcow2:0:drive-scsi0=t0.raw' \
    "0:drive-scsi0=$(printf 'x%.0s' {1..8192})"; do
    targets
    echo "$line" >map
    code_of platter vma extract -d drive-scsi0 x.vma -r map out 2>&1 >list | cut -c1-150
    tail -n 1 list
    cmp full t0.raw
done
echo "--- sizes"
targets
for size in 757759 4952065; do
    truncate -s $size t0.raw
    echo '0:drive-scsi0=t0.raw' >map
    rm -rf out
    code_of platter vma extract -d drive-scsi0 x.vma -r map out >list
    tail -n 1 list
done
echo "--- a disk without a line, one that is nowhere, a map that is nowhere"
for line in '' '0:drive-scsi0=nowhere/t0.raw'; do
    rm -rf out
    echo "$line" >map
    code_of platter vma extract -d drive-scsi0 x.vma -r map out >list
    tail -n 1 list
done
rm -rf out
code_of platter vma extract x.vma -r nowhere out >list
tail -n 1 list
echo "--- two disks in one place, and the archive itself"
targets
rm -rf out
printf '0:drive-scsi0=t0.raw\n0:drive-scsi1=./t0.raw\n' >map
code_of platter vma extract -d drive-scsi0,drive-scsi1 x.vma -r map out >list
tail -n 1 list
rm -rf out
printf 'format=raw:0:drive-scsi0=x.vma\n' >map
code_of platter vma extract -d drive-scsi0 x.vma -r map out >list
tail -n 1 list
platter vma verify x.vma
