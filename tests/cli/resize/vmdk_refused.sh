# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter create -q -f vmdk a.vmdk 10M
code_of platter resize --shrink a.vmdk 5M
code_of platter resize a.vmdk 11M --preallocation=full
code_of platter resize a.vmdk 10000001
code_of platter resize a.vmdk 3T
platter resize --preallocation=metadata a.vmdk 11M
platter convert -O vmdk -o subformat=streamOptimized a.vmdk s.vmdk
code_of platter resize s.vmdk 20M
# A file that would come to stand in the way is left alone, and nothing changes.
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse t.vmdk 2000M
echo mine >t-s003.vmdk
cp t.vmdk before.vmdk
code_of platter resize t.vmdk 5G
cmp t.vmdk before.vmdk
cat t-s003.vmdk
left_here
rm t-s003.vmdk
platter resize t.vmdk 5G
left_here
# Files in another folder are not added to.
mkdir sub
mv t-s00?.vmdk sub
sed -i 's|"t-s|"sub/t-s|' t.vmdk
code_of platter resize t.vmdk 9G
# No number in the name to go on from.
platter create -q -f vmdk -o subformat=twoGbMaxExtentFlat n.vmdk 1M
mv n-f001.vmdk n-disk.vmdk
sed -i 's/n-f001/n-disk/' n.vmdk
platter resize n.vmdk 2M
code_of platter resize n.vmdk 3G
platter info n.vmdk | grep virtual
# What another extent has in the same file is not grown over.
truncate -s 128k both.raw
qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 64k 64k' both.raw >/dev/null
printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 parentCID=ffffffff 'createType="custom"' \
    'RW 128 FLAT "both.raw" 128' 'RW 128 FLAT "both.raw" 0' >disk.vmdk
cp disk.vmdk before.vmdk
cp both.raw before.raw
code_of platter resize disk.vmdk 1M
cmp disk.vmdk before.vmdk
cmp both.raw before.raw
