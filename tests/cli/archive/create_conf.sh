# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# qemu-server.conf: what a restore needs of it is told, added, or made.
truncate -s 10M a.raw
truncate -s 540672 efi.raw
truncate -s 4M tpm.raw

make() {
    platter archive create out.vma -f raw -d drive-scsi0=a.raw "$@" >/dev/null
}

echo '* made'
make -d drive-efidisk0=efi.raw -d drive-tpmstate0-backup=tpm.raw -d data=a.raw --map virtio3:data:ceph:qcow2 \
    --vmid 120 --generate-conf --set memory=8192 --set name=web --set boot=order=virtio3
platter vma config out.vma
make --generate-conf
platter vma config out.vma

echo '* told'
printf 'memory: 512\nscsi0: local:x\n' >qemu-server.conf
make -c qemu-server.conf -d odd=a.raw 2>&1
make -q -c qemu-server.conf 2>&1
printf '#qmdump#map:scsi0:drive-scsi0:::\n' >>qemu-server.conf
make -c qemu-server.conf 2>&1
sed -i '/^scsi0/d' qemu-server.conf
make -c qemu-server.conf 2>&1
make 2>&1

echo '* lines that a restore does not take'
for map in scsi0:drive-scsi0:local:raw scsi0:drive-scsi0:: odd0:drive-scsi0:local:raw: $'scsi0:drive-scsi0:::\r'; do
    printf 'scsi0: local:x\n#qmdump#map:%s\n' "$map" >qemu-server.conf
    make -c qemu-server.conf 2>&1
done

echo '* added, in front of the snapshots'
printf 'scsi0: local:x\n\n[before]\nscsi0: local:y\n' >qemu-server.conf
make -c qemu-server.conf --map scsi0:drive-scsi0
platter vma config out.vma

echo '* refused'
rm out.vma
code_of make -c qemu-server.conf --generate-conf
code_of make --map scsi0:drive-scsi0
code_of make --set a=b
code_of make --generate-conf --set Ab
code_of make --generate-conf --set 'a=b
c'
code_of make --generate-conf -d scsi0=a.raw
code_of make --generate-conf -d odd=a.raw
code_of make -c qemu-server.conf --map scsi31:drive-scsi0
code_of make -c qemu-server.conf --map scsi0:other
code_of make -c qemu-server.conf --map scsi0:drive-scsi0:a:b:c
left_here
