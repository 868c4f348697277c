# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A new image over one of the same name that has more files, as many, or fewer: its own are replaced,
# those it has no use for stay, and nothing of the old one is in the new one.
make() { platter convert -f raw -O vmdk -o "subformat=$1" "$2" disk.vmdk; }
data 1M content.raw
truncate -s 5G large.raw
truncate -s 3G small.raw
for size in large small; do
    dd if=content.raw of=$size.raw bs=1M seek=2600 conv=notrunc status=none
done
for kind in twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    for size in large small small large; do
        make $kind $size.raw
        platter compare -F raw disk.vmdk $size.raw
        qemu-img compare -F raw disk.vmdk $size.raw
        left_here | grep disk | paste -sd ' '
    done
    rm disk*
done
make twoGbMaxExtentFlat small.raw
make monolithicSparse content.raw
make monolithicFlat content.raw
platter compare -F raw disk.vmdk content.raw
left_here
# The rights of what was there before.
chmod 640 disk.vmdk disk-flat.vmdk
make monolithicFlat content.raw
stat -c '%a %n' disk.vmdk disk-flat.vmdk
