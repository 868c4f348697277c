# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 -o data_file=a.data a.qcow2 10M
qemu-io -c 'write 1M 1M' a.qcow2 >/dev/null
same map --output=json a.qcow2
same map a.qcow2
