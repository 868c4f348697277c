# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-io -c 'write 1M 3M' a.qcow2 >/dev/null
for args in '-s 1500k -l 1M' '-s 1500k' '-l 1M' '--start-offset=3M --max-length=3M' '-s 9M -l 100M' '-s 10M' '-s 20M' '-l 0'; do
    same map --output=json $args a.qcow2
    same map $args a.qcow2
done
