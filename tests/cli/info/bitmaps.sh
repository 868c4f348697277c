# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 a.qcow2 10M
qemu-img bitmap --add a.qcow2 one
qemu-img bitmap --add -g 128k a.qcow2 two
same info a.qcow2
same info --output=json a.qcow2
