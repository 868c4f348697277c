# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive of disks in several formats: to a file, a pipe, a FIFO and compressed, it is the same one.
data 300K part
truncate -s 20M scsi.raw
dd if=part of=scsi.raw bs=1k seek=9000 conv=notrunc status=none
truncate -s 540672 efi.raw
put 540671 x efi.raw
data 66048 odd.raw 2
data 200000 state.bin 3
platter convert -f raw -O qcow2 scsi.raw scsi.qcow2
printf 'memory: 512\nscsi0: local:x\nefidisk0: local:y\nvirtio1: local:z\n' >vm.conf
printf '[OPTIONS]\n' >qemu-server.fw

make() {
    platter archive create -q --reproducible "$@" -d drive-scsi0=scsi.qcow2 -d drive-efidisk0=efi.raw \
        -d drive-virtio1=odd.raw --vmstate state.bin -c qemu-server.conf=vm.conf -c qemu-server.fw \
        --map scsi0:drive-scsi0 --map efidisk0:drive-efidisk0:nfs --map virtio1:drive-virtio1:nfs:qcow2
}

make file.vma
platter vma list file.vma
platter vma config file.vma
for disk in scsi0:scsi.raw efidisk0:efi.raw virtio1:odd.raw; do
    platter compare -f vma -F raw "file.vma@drive-${disk%:*}" "${disk#*:}"
done
platter extract -q -d vmstate -O raw file.vma state.out
cmp -n 200000 state.bin state.out
stat -c %s state.out
platter verify file.vma

echo '* elsewhere'
make - | cmp - file.vma
mkfifo fifo
cmp fifo file.vma &
make fifo
wait $!
for compressed in file.vma.zst:zstd file.vma.gz:gzip; do
    make "${compressed%:*}" -m 1
    cp "${compressed%:*}" first
    make "${compressed%:*}" -m 4
    cmp first "${compressed%:*}"
    "${compressed#*:}" -dc <first | cmp - file.vma
done
make named.zst --compression=none
cmp named.zst file.vma

echo '* threads'
for m in 1 2 7; do
    make "threads-$m.vma" -m $m
    cmp "threads-$m.vma" file.vma
done

echo '* what tells it apart'
SOURCE_DATE_EPOCH=1700000000 make date.vma
platter info --output=json date.vma | jq -c '."format-specific".data | [.uuid, .ctime]'
make given.vma --uuid 11111111-2222-3333-4444-555555555555 --time '2023-11-14 22:13:20'
platter info --output=json given.vma | jq -c '."format-specific".data | [.uuid, .ctime]'
platter archive create -q random.vma -d a=odd.raw -f raw
platter archive create -q random2.vma -d a=odd.raw -f raw
! cmp -s random.vma random2.vma

echo '* a name of Proxmox VE'
mkdir dump
platter archive create dump --vmid 104 --time 1700000000 --compression=zstd -d drive-scsi0=scsi.raw -f raw \
    --generate-conf
platter archive create dump/ --vmid 104 --time 1700000000 -q -d drive-scsi0=scsi.raw -f raw
ls dump
platter archive create json.vma --output=json -q -d drive-scsi0=scsi.raw -f raw
