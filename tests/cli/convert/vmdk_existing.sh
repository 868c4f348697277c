# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# -n writes into images of several files, of either making, as they stand.
data 3M content.raw
truncate -s 5G content.raw
dd if=content.raw of=content.raw bs=1M count=3 seek=2046 conv=notrunc status=none
for kind in monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    for maker in platter qemu-img; do
        $maker create -q -f vmdk -o subformat=$kind disk.vmdk 5G
        before=$(stat -c '%n %i' disk-*)
        platter convert -n -f raw -O vmdk content.raw disk.vmdk
        test "$before" = "$(stat -c '%n %i' disk-*)" && echo "the same files"
        platter compare -F raw disk.vmdk content.raw
        qemu-img compare -F raw disk.vmdk content.raw
        rm disk*
    done
done
platter create -q -f vmdk -o subformat=vmfs disk.vmdk 5G
platter convert -n --target-is-zero -f raw -O vmdk content.raw disk.vmdk
qemu-img compare -F raw disk.vmdk content.raw
platter create -q -f vmdk -o subformat=vmfs disk.vmdk 1G
code_of platter convert -n -f raw -O vmdk content.raw disk.vmdk
# Not into one whose changes are tracked in a file of its own, which would be wrong then.
platter create -q -f vmdk -o subformat=monolithicFlat tracked.vmdk 1M
echo 'changeTrackPath="tracked-ctk.vmdk"' >>tracked.vmdk
sha256sum tracked* >before
data 1M some.raw
code_of platter convert -n -f raw -O vmdk some.raw tracked.vmdk
sha256sum -c --quiet before
platter digest tracked.vmdk >/dev/null
