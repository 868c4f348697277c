# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M base.raw
truncate -s 5M base.raw
qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2 8M
qemu-io -c 'write 2M 64k' mid.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 10M
qemu-io -c 'write 3M 64k' -c 'write -z 512k 64k' top.qcow2 >/dev/null
same map top.qcow2
same map --output=json top.qcow2
same map --output=json mid.qcow2
same map --output=json -f qcow2 -U top.qcow2
