# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What cannot be compacted is told, with what to do instead, and stays what it is.
qemu-img create -q -f qcow2 -o cluster_size=4k good.qcow2 1M
qemu-io -c 'write -P 1 0 256k' good.qcow2 >/dev/null
qemu-img create -q -f raw a.raw 1M
qemu-img create -q -f vmdk a.vmdk 1M
refused() {
    code_of platter compact "$@" 2>&1
}
refused
refused good.qcow2 good.qcow2
refused nope.qcow2
refused -f raw a.raw
refused a.vmdk
refused -U good.qcow2
refused --output=xml good.qcow2
cp good.qcow2 dirty.qcow2
put 79 '\x01' dirty.qcow2
cp good.qcow2 corrupt.qcow2
put 79 '\x02' corrupt.qcow2
cp good.qcow2 damaged.qcow2
put 16391 '\x03' damaged.qcow2
cp good.qcow2 counts.qcow2
put 4100 '\x7f' counts.qcow2
sha256sum ./*.qcow2 a.* >sums
for image in dirty corrupt damaged counts; do
    refused -n $image.qcow2
    refused $image.qcow2
done
sha256sum --quiet -c sums
echo '== a name that looks like a view'
refused good.qcow2@one
