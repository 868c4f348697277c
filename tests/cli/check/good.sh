# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What qemu-img says of good images we say, and a little more.
qemu-img create -q -f vmdk a.vmdk 64M
qemu-io -f vmdk -c 'write 0 1M' -c 'write 33M 64k' a.vmdk >/dev/null
qemu-img check a.vmdk
platter check a.vmdk
platter check --output=json a.vmdk
platter check -q a.vmdk
platter check -r all a.vmdk
platter check --data -m 2 -T none -U a.vmdk
qemu-img convert -O vmdk -o subformat=streamOptimized a.vmdk stream.vmdk
platter check --data stream.vmdk
qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
qemu-img create -q -f vmdk -o subformat=monolithicSparse empty.vmdk 1M
same check flat.vmdk
platter check -p empty.vmdk
