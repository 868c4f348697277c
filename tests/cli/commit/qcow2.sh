# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow2 over each format, of any shape: the base gets its data and its size, and it is empty after.
# With -d it is left as it is.
for format in raw qcow2 vmdk; do
    for options in compat=0.10 extended_l2=on cluster_size=512,refcount_bits=1; do
        platter create -q -f $format base.$format 1M
        qemu-io -f $format -c 'write -P 1 0 1M' base.$format >/dev/null
        platter create -q -f qcow2 -o $options -b base.$format -F $format top.qcow2 2M
        qemu-io -f qcow2 -c 'write -P 2 300k 700k' -c 'write -z 0 64k' -c 'write -P 3 1900k 100k' \
            top.qcow2 >/dev/null
        platter convert -O raw top.qcow2 right.raw
        platter commit -d top.qcow2
        qemu-img compare -f qcow2 -F $format top.qcow2 base.$format
        platter commit -q top.qcow2
        qemu-img check -q top.qcow2
        [ $format != vmdk ] || platter check -q base.$format
        [ $format != qcow2 ] || qemu-img check -q base.$format
        platter compare -q -F raw top.qcow2 right.raw
        platter compare -q -f $format -F raw base.$format right.raw
        [ $format = vmdk ] || qemu-img compare -q -F raw top.qcow2 right.raw
        platter map top.qcow2 | count top.qcow2
        stat -c %s top.qcow2
    done
done
# Snapshots of the image stay; what they alone need is not given back.
platter create -q -f qcow2 base.qcow2 1M
platter create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -f qcow2 -c 'write -P 4 0 1M' top.qcow2 >/dev/null
qemu-img snapshot -c one top.qcow2
qemu-io -f qcow2 -c 'write -P 5 64k 512k' top.qcow2 >/dev/null
platter commit -q top.qcow2
qemu-img check -q top.qcow2
qemu-io -f qcow2 -c 'read -q -P 4 0 64k' -c 'read -q -P 5 64k 512k' base.qcow2
qemu-img snapshot -a one top.qcow2
qemu-io -f qcow2 -c 'read -q -P 4 0 1M' top.qcow2
# Further down; what is between is left alone, and so is the image.
platter create -q -f qcow2 base.qcow2 1M
platter create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
platter create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 2M
qemu-io -f qcow2 -c 'write -P 6 0 256k' mid.qcow2 >/dev/null
qemu-io -f qcow2 -c 'write -P 7 128k 1M' top.qcow2 >/dev/null
platter commit -b base.qcow2 top.qcow2
qemu-img compare top.qcow2 base.qcow2
# A data file of the image is emptied as well; one of the base is written.
platter create -q -f raw base.raw 1M
qemu-img create -q -f qcow2 -o data_file=top.bin -b base.raw -F raw data.qcow2
qemu-io -f qcow2 -c 'write -P 8 64k 128k' data.qcow2 >/dev/null
platter commit data.qcow2
qemu-img check -q data.qcow2
platter map data.qcow2 | count top.bin
qemu-io -f raw -c 'read -q -P 8 64k 128k' base.raw
