# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What no VMDK can be, each with a sentence and without a file.
platter create -q -f vmdk base.vmdk 1M
platter create -q -f qcow2 base.qcow2 1M
for kind in monolithicFlat twoGbMaxExtentFlat vmfs; do
    code_of platter create -f vmdk -o subformat=$kind -b base.vmdk -F vmdk disk.vmdk
    code_of platter create -f vmdk -o subformat=$kind,backing_file=base.vmdk,backing_fmt=vmdk disk.vmdk
    code_of platter create -f vmdk -o subformat=$kind,zeroed_grain=on disk.vmdk 1M
done
code_of platter create -f vmdk -o subformat=twoGbMaxExtentSparse -b base.qcow2 -F qcow2 disk.vmdk
code_of platter create -f vmdk -o subformat=2GbMaxExtentSparse disk.vmdk 1M
code_of platter create -f vmdk -o subformat=vmfs,compat6=on,hwversion=7 disk.vmdk 1M
code_of platter create -f vmdk -o subformat=streamOptimized disk.vmdk 2P
# What measure is asked about must be possible as well.
for options in subformat=vmfs,zeroed_grain=on compat6=on,hwversion=7 'hwversion=a"b' \
    $'toolsversion=a\tb'; do
    code_of platter create -f vmdk -o "$options" disk.vmdk 1M
    code_of platter measure -O vmdk -o "$options" --size 1M
done
code_of platter measure -O vmdk -o subformat=streamOptimized --size 2P
# Names of so many pieces that no reader takes them all.
code_of platter create -f vmdk -o subformat=twoGbMaxExtentFlat "$(printf %0238d 0).vmdk" 8187G
# A sparse file whose tables could not name its last sector; one beyond the most pieces there can be.
code_of platter create -f vmdk disk.vmdk 2T
code_of platter create -f vmdk -o subformat=twoGbMaxExtentSparse disk.vmdk 9T
code_of platter measure -O vmdk --size 2T
code_of platter measure -O vmdk -o subformat=twoGbMaxExtentFlat --size 1E
code_of platter create -f vmdk -o subformat=monolithicFlat "di\"sk.vmdk" 1M
code_of platter create -f vmdk -o subformat=monolithicFlat "./di:sk.vmdk" 1M
# A link where an extent would be: it would not be followed when the image is opened.
touch else
ln -s else link-flat.vmdk
code_of platter create -f vmdk -o subformat=monolithicFlat link.vmdk 1M
mkdir folder-flat.vmdk
code_of platter create -f vmdk -o subformat=vmfs folder.vmdk 1M
left_here
