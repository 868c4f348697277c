# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Extents that begin inside what would be a grain of the disk are written like all others, by several
# threads as well.
descriptor() {
    printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%s\ncreateType="custom"\n' "${1:-ffffffff}"
    printf "${2:+parentFileNameHint=\"$2\"\n}"
}

echo "-- convert, over what is there"
truncate -s $((63 * 512)) flat
platter create -q -f vmdk a.vmdk $((4001 * 512))
platter create -q -f vmdk b.vmdk $((4032 * 512))
{
    descriptor
    printf 'RW 63 FLAT "flat" 0\nRW 4001 SPARSE "a.vmdk"\nRW 4032 SPARSE "b.vmdk"\n'
} >disk.vmdk
data $((8096 * 512)) old.raw 1
platter convert -n -f raw -O vmdk old.raw disk.vmdk
platter compare -f raw old.raw disk.vmdk
data $((8096 * 512)) new.raw 2
for unit in 3 4 6 9 10 13 40 60; do
    dd if=/dev/zero of=new.raw bs=64k seek=$unit count=1 conv=notrunc status=none
done
timeout 60 platter convert -n -f raw -O vmdk new.raw disk.vmdk # which waits for nobody who waits for it
platter compare -f raw new.raw disk.vmdk
platter check -q disk.vmdk

echo "-- commit"
platter create -q -f vmdk -b disk.vmdk -F vmdk child.vmdk
platter convert -n -f raw -O vmdk old.raw child.vmdk
timeout 60 platter commit -q child.vmdk
platter compare -f raw old.raw disk.vmdk

echo "-- a larger disk does not show what its parent has behind the old end"
platter convert -f raw -O vmdk old.raw parent.vmdk
cid=$(grep -a -m1 '^CID=' parent.vmdk)
platter create -q -f vmdk c.vmdk $((63 * 512))
platter create -q -f vmdk d.vmdk $((65 * 512))
{
    descriptor "${cid#CID=}" parent.vmdk
    printf 'RW 63 SPARSE "c.vmdk"\nRW 65 SPARSE "d.vmdk"\n'
} >child.vmdk
platter resize -q child.vmdk 1M
platter convert -O raw child.vmdk child.raw
cmp -n 65536 child.raw old.raw
cmp -n $((1048576 - 65536)) -i 65536 child.raw /dev/zero && echo "zeros"
