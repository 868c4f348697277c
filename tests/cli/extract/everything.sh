# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# All there is goes into a folder; nothing that is there is replaced.
three_disks
archive x.vma -c qemu-server.conf='memory: 512
' -c qemu-server.fw= -s 1 drive-scsi0=a.raw drive-scsi1=b.raw 5:vmstate=a.raw drive-scsi2=c.raw
platter extract -o out x.vma
cmp a.raw out/drive-scsi0.raw
cmp b.raw out/drive-scsi1.raw
cmp c.raw out/drive-scsi2.raw
cmp out/vmstate.bin <(cat a.raw; head -c 28672 /dev/zero) # a state has whole clusters
stat -c '%n %s %b' out/qemu-server.fw out/drive-scsi1.raw
cat out/qemu-server.conf
echo "--- it is there already"
code_of platter extract -o out x.vma
for there in drive-scsi2.raw qemu-server.conf vmstate.bin; do
    rm -r out
    mkdir out
    echo mine >out/$there
    code_of platter extract -o out x.vma
    ls out
    cat out/$there
done
echo "--- into the current folder, without a word, out of a pipe"
mkdir here
(cd here && zstd -qc ../x.vma | platter extract -q -)
ls here
echo "--- only this and that"
platter extract -d drive-scsi1 -c qemu-server.fw -o some x.vma
ls some
platter extract --config -d drive-scsi1 -o configs x.vma
ls configs
echo "--- an archive of configurations alone"
archive confs.vma -c qemu-server.conf=text
platter extract -o confs confs.vma
