# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Never a device, another protocol, or a description.
for name in /dev/zero nbd:localhost:10809 'json:{"driver":"null-co"}' http://localhost/x; do
    qemu-img create -q -u -f qcow2 -b "$name" -F raw top.qcow2 1M
    code_of platter convert -O raw top.qcow2 b.raw
done
left_here
