# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A compressed image is what is inside of it, whatever it is compressed with.
data 300K a.raw
truncate -s 2M a.raw
put 1900000 'the end' a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
platter convert -f raw -O vmdk a.raw a.vmdk
for image in a.raw a.qcow2 a.vmdk; do
    zstd -qk $image
    gzip -k $image
    lzop -q $image
    bzip2 -k $image
    xz -k $image
done
platter digest -q -f raw a.raw | sed 's/ .*//' >right
for image in a.*.*; do
    platter digest -q "$image" | sed 's/ .*//' | cmp - right
    platter compare -q a.qcow2 "$image"
    platter info --output=json "$image" | jq -r --argjson blocks "$(stat -c %b "$image")" \
        '"\(.filename) \(.format) \(.compression) \(."virtual-size") \(."actual-size" == $blocks * 512)"'
done
echo "--- found by content, not by name"
mv a.qcow2.xz disk.raw
platter info disk.raw | sed 's/^disk size: .*/disk size/'
platter convert -O raw disk.raw b.raw
cmp a.raw b.raw
echo "--- nothing inside has a place in the file"
platter map --output=json a.qcow2.gz
code_of platter map a.qcow2.gz
echo "--- checked and measured as any other"
platter check a.qcow2.lzo
platter measure -O raw a.vmdk.bz2
echo "--- the bytes as they are"
platter info -f raw a.qcow2.zst | grep -v '^disk size\|^virtual size'
platter convert -f raw -O raw a.qcow2.zst c.raw
cmp -n "$(stat -c %s a.qcow2.zst)" a.qcow2.zst c.raw
echo "--- the format can be named"
platter convert -f qcow2 -O raw a.qcow2.zst b.raw
cmp a.raw b.raw
code_of platter info -f vmdk a.qcow2.zst
