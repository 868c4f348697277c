# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-io -c 'write 1M 1M' -c 'write -z 4M 1M' -c 'write 6M 64k' -c 'write 6208k 64k' a.qcow2 >/dev/null
same map a.qcow2
same map --output=json a.qcow2
same map --output=human a.qcow2
platter map a.qcow2
platter map --output=json a.qcow2
