# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The files of each subformat, and what their descriptors say.
text() {
    head -c 16k "$1" | tr -d '\0' | sed -n 's/^CID=[0-9a-f]\{8\}$/CID=X/; s/^.*# Disk/# Disk/; /^# Disk/,/tools/p'
}
for kind in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized vmfs; do
    platter create -f vmdk -o subformat=$kind disk.vmdk 4G
    stat -c '%n %s' disk*
    text disk.vmdk
    platter info disk.vmdk | grep 'virtual size'
    qemu-img check disk.vmdk 
    rm disk*
done
# Names without a suffix, and with more than one dot.
platter create -q -f vmdk -o subformat=monolithicFlat disk 1M
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse old.disk.vmdk 3G
mkdir sub.d
platter create -q -f vmdk -o subformat=vmfs sub.d/disk 1M
left_here
# The disk database: what is asked, and geometry by size and controller.
platter create -q -f vmdk -o subformat=monolithicFlat,adapter_type=buslogic,hwversion=11,toolsversion=7 disk.vmdk 1G
text disk.vmdk | grep ddb
for size in 500M 1025M 2049M 40G; do
    for adapter in ide lsilogic; do
        platter create -q -f vmdk -o adapter_type=$adapter disk.vmdk $size
        echo "$size $adapter:" "$(text disk.vmdk | sed -n 's/ddb.geometry.*= "\(.*\)"/\1/p' | paste -sd ' ')"
    done
done
platter create -q -f vmdk -o subformat=vmfs,adapter_type=ide,compat6=on disk.vmdk 1M
text disk.vmdk | grep -E 'adapter|HWV'
