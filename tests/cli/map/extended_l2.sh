# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 -o extended_l2=on a.qcow2 10M
qemu-io -c 'write 1M 6k' -c 'write -z 2M 4k' -c 'write 3M 64k' -c 'discard 3M 2k' a.qcow2 >/dev/null
same map --output=json a.qcow2
same map a.qcow2
