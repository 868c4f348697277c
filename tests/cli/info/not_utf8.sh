# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Names that are no UTF-8 are told all the same, and JSON stays JSON.
qemu-img create -q -f vmdk $'b\xff.vmdk' 1M
qemu-img create -q -f qcow2 $'b\xff.qcow2' 1M
qemu-img create -q -u -f qcow2 -b $'x\xff.raw' -F raw top.qcow2 1M
for image in $'b\xff.vmdk' $'b\xff.qcow2' top.qcow2; do
    platter info "$image" | sed -n '1p;/^backing/p;/filename/p'
    platter info --output=json "$image" | python3 -c 'import json, sys; json.load(sys.stdin)'
done
platter digest --output=json $'b\xff.qcow2' | python3 -c 'import json, sys; json.load(sys.stdin)'
