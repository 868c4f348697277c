# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Three deep, of every subformat that can have a parent; and what qemu-img makes of the same.
for subformat in monolithicSparse twoGbMaxExtentSparse; do
    for base in monolithicSparse monolithicFlat twoGbMaxExtentFlat vmfs; do
        echo "$subformat over $base"
        rm -rf work theirs
        mkdir work
        cd work
        platter create -q -f vmdk -o subformat=$base base.vmdk 6M
        qemu-io -f vmdk -c 'write -P 1 0 6M' base.vmdk >/dev/null
        platter create -q -f vmdk -o subformat=$subformat,zeroed_grain=on -b base.vmdk -F vmdk mid.vmdk
        qemu-io -f vmdk -c 'write -P 2 1M 3M' -c 'write -z 2M 64k' mid.vmdk >/dev/null
        platter create -q -f vmdk -o subformat=$subformat -b mid.vmdk -F vmdk top.vmdk
        qemu-io -f vmdk -c 'write -P 3 2000k 1M' top.vmdk >/dev/null
        platter convert -O raw top.vmdk right.raw
        cp -r . ../theirs
        platter commit top.vmdk
        platter compare -F raw top.vmdk right.raw
        qemu-img compare -q -F raw top.vmdk right.raw
        platter compare -F raw mid.vmdk right.raw
        platter map --output=json top.vmdk | count '"depth": 0'
        platter commit -q mid.vmdk
        platter compare -F raw base.vmdk right.raw
        platter compare -F raw top.vmdk right.raw
        qemu-img compare -q -F raw top.vmdk right.raw
        (cd ../theirs && qemu-img commit -q top.vmdk)
        platter compare -F raw --ignore-cid ../theirs/mid.vmdk right.raw
        for image in base mid top; do platter check -q $image.vmdk || echo "$image: $?"; done
        cd ..
    done
done
