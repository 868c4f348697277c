# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Every subformat that can be written grows: in its tables, by a directory of more sectors, by files.
export QEMU="qemu-io -f vmdk"
for subformat in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat vmfs; do
    echo "$subformat"
    mkdir $subformat
    cd $subformat
    platter create -q -f vmdk -o subformat=$subformat vm.vmdk 33000k
    $QEMU -c 'write -P 5 0 65k' -c 'write -P 7 32M 232k' vm.vmdk >/dev/null
    for size in 33024k 40M 5G; do
        platter resize vm.vmdk $size
        platter check -q vm.vmdk
        qemu-img check -q vm.vmdk
        qemu-img info vm.vmdk | grep 'virtual size' | head -1
        $QEMU -c 'read -P 5 0 65k' -c 'read -P 7 32M 232k' -c 'read -P 0 33000k 24k' vm.vmdk | grep -c '^read'
    done
    $QEMU -c 'write -P 9 4G 1M' -c 'read -P 0 4095M 1M' -c 'read -P 9 4G 1M' -c 'write -P 8 5119M 1M' \
        vm.vmdk | grep -c -E '^(read|wrote)'
    grep -a -E '^(RW|ddb.geometry.cyl)' vm.vmdk
    left_here
    cd ..
done
