# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A target that is a file inside a source or inside its backing file, and extents of a new image that
# would be: refused, also where locks (-U) do not tell.
data 1M content.raw
platter convert -f raw -O vmdk -o subformat=monolithicFlat content.raw disk.vmdk
platter convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse content.raw split.vmdk
platter create -q -f vmdk -b disk.vmdk -F vmdk child.vmdk
platter create -q -f qcow2 -b disk.vmdk -F vmdk child.qcow2
cp disk-flat.vmdk old-flat.vmdk
cp disk.vmdk old.vmdk
for more in '' -U; do
    code_of platter convert $more -O raw disk.vmdk disk-flat.vmdk
    code_of platter convert $more -n -O raw child.vmdk disk-flat.vmdk
    code_of platter convert $more -O vmdk -o subformat=monolithicFlat disk.vmdk disk.vmdk
    code_of platter convert $more -O vmdk -o subformat=monolithicFlat child.qcow2 disk.vmdk
    code_of platter convert $more -f vmdk -O raw split.vmdk split-s001.vmdk
done
# The image itself is another file, but its extent would be the source, or its backing file.
mv disk.vmdk source.vmdk
code_of platter convert -U -O vmdk -o subformat=monolithicFlat source.vmdk disk.vmdk
cp old-flat.vmdk own-s001.vmdk
code_of platter convert -U -f raw -O vmdk -o subformat=twoGbMaxExtentSparse own-s001.vmdk own.vmdk
platter create -q -f vmdk base-s001.vmdk 1M
code_of platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b base-s001.vmdk -F vmdk base.vmdk
code_of platter create -q -f qcow2 -b source.vmdk -F vmdk disk-flat.vmdk
# An existing target made of the source's file.
sed 's/disk-flat/old-flat/' source.vmdk >target.vmdk
code_of platter convert -U -f raw -n -O vmdk old-flat.vmdk target.vmdk
cmp disk-flat.vmdk old-flat.vmdk
cmp source.vmdk old.vmdk
left_here
