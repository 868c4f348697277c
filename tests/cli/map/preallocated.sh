# SPDX-License-Identifier: MIT
# shellcheck shell=bash
for p in metadata falloc full; do
    qemu-img create -q -f qcow2 -o preallocation=$p a.qcow2 4M
    same map --output=json a.qcow2
done
