# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Zeros for a unit of the disk that begins inside a grain of its extent: what else that grain shows of
# the parent stays.
data 1M base.raw
platter convert -f raw -O vmdk base.raw base.vmdk
cid=$(grep -a -m1 '^CID=' base.vmdk)
platter create -q -f vmdk -o zeroed_grain=on a.vmdk $((63 * 512))
platter create -q -f vmdk -o zeroed_grain=on b.vmdk $((1985 * 512))
printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 "parentCID=${cid#CID=}" 'createType="twoGbMaxExtentSparse"' \
    'parentFileNameHint="base.vmdk"' 'RW 63 SPARSE "a.vmdk"' 'RW 1985 SPARSE "b.vmdk"' >child.vmdk
platter compare -F raw child.vmdk base.raw
platter create -q -f vmdk -o zeroed_grain=on -b child.vmdk -F vmdk top.vmdk
qemu-io -f vmdk -c 'write -z 128k 64k' -c 'write -z 512k 192k' top.vmdk >/dev/null
platter convert -O raw top.vmdk right.raw
platter commit -q top.vmdk
platter compare -F raw child.vmdk right.raw
qemu-img compare -F raw child.vmdk right.raw
for image in child top; do platter check -q $image.vmdk; done
