# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A program that was killed while a split disk got its names leaves the old one under other names: that
# is said, and nothing is made over what is left of it.
platter create -q -f vmdk -o subformat=twoGbMaxExtentFlat disk.vmdk 1M
data 1M content.raw
platter convert -n -f raw -O vmdk content.raw disk.vmdk
mkdir folder
mv disk.vmdk folder/.disk.vmdk.platter-partial-0123abcd.old
mv disk-f001.vmdk folder/.disk-f001.vmdk.platter-partial-4567cdef.old
truncate -s 1M folder/disk-f001.vmdk # of the new one
sha256sum folder/.disk* folder/* >before
for command in "info folder/disk.vmdk" "map folder/disk.vmdk" "check folder/disk.vmdk" \
    "create -q -f vmdk -o subformat=twoGbMaxExtentFlat folder/disk.vmdk 1M" \
    "convert -f raw -O vmdk -o subformat=twoGbMaxExtentFlat content.raw folder/disk.vmdk"; do
    echo "== ${command%% *}"
    # shellcheck disable=SC2086
    code_of platter $command
done
sha256sum --quiet -c before && echo "nothing changed"
code_of platter info folder/disk # another name

echo "== as it says"
for file in folder/.*.old; do
    name=${file#*/.}
    mv "$file" "folder/${name%.platter-partial-*}"
done
platter compare -f raw content.raw folder/disk.vmdk
platter create -q -f vmdk -o subformat=twoGbMaxExtentFlat folder/disk.vmdk 1M
