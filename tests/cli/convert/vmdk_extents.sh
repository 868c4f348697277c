# SPDX-License-Identifier: MIT
# Extents of all kinds keep their place on the disk, whatever may be done with them.
data 64K a.raw 1
data 64K b.raw 2
cat a.raw b.raw >both.vmdk

# disk LINE...
disk() {
    printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 parentCID=ffffffff \
        'createType="custom"' "$@" >disk.vmdk
}

echo "== read-only, zeros, and the same file twice"
disk 'RDONLY 128 FLAT "both.vmdk" 0' 'RW 128 ZERO' 'RW 128 flat "both.vmdk" 128' 'RDONLY 1 ZERO'
platter convert -O raw disk.vmdk out.raw
(cat a.raw && head -c 64K /dev/zero && cat b.raw && head -c 512 /dev/zero) | cmp - out.raw
platter map disk.vmdk

echo "== only what may be written is"
head -c 128K out.raw >new.raw
cat a.raw >>new.raw
head -c 512 /dev/zero >>new.raw
code_of platter convert -n -f raw -O vmdk new.raw disk.vmdk
cat a.raw b.raw | cmp - both.vmdk
disk 'RW 128 FLAT "both.vmdk" 128' 'RDONLY 128 FLAT "both.vmdk" 0'
platter info disk.vmdk | grep -E 'access|offset'
data 64K c.raw 3
cat c.raw >first.raw
code_of platter convert -n -f raw -O vmdk first.raw disk.vmdk
cat a.raw c.raw | cmp - both.vmdk
truncate -s 128K first.raw # zeros where it may not be written, of a file that is open for writing
code_of platter convert -n -f raw -O vmdk first.raw disk.vmdk
cat a.raw c.raw | cmp - both.vmdk

disk 'RW 128 FLAT "both.vmdk" 128' 'RW 127 FLAT "both.vmdk" 0' 'RW 1 FLAT "both.vmdk" 127' 'RW 9 FLAT "a.raw" 0'
platter info disk.vmdk | grep -c 'access: RW'
disk 'RW 128 FLAT "both.vmdk" 128' 'RW 9 FLAT "a.raw" 0' 'RW 128 FLAT "both.vmdk" 1'
platter info disk.vmdk | grep -c 'access: RW'

echo "== NOACCESS: its file need not be there"
disk 'RW 128 FLAT "both.vmdk" 0' 'NOACCESS 128 SPARSE "gone.vmdk"' 'NOACCESS 128 ZERO'
platter info disk.vmdk | grep -E 'virtual size: |access'
code_of platter convert -O raw disk.vmdk out.raw
code_of platter digest disk.vmdk
platter convert --salvage -O raw disk.vmdk out.raw || echo "exit code $?"
head -c 64K out.raw | cmp - a.raw

echo "== an extent that is opened instead of the disk"
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 1M
platter convert -n -f raw -O vmdk a.raw split.vmdk
platter convert -O raw split-s001.vmdk out.raw
cmp -n 65536 out.raw a.raw
platter info split-s001.vmdk | sed -n '/Format/,$p'
code_of platter convert -n -f raw -O vmdk b.raw split-s001.vmdk
qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
code_of platter info -f vmdk flat-flat.vmdk
code_of platter create -q -f vmdk -b split-s001.vmdk -F vmdk child.vmdk
