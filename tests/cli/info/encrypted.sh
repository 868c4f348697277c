# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q --object secret,id=s,data=abc -f qcow2 \
    -o encrypt.format=aes,encrypt.key-secret=s a.qcow2 1M
platter info a.qcow2 | grep encrypted
platter info --output=json a.qcow2 | grep '"encrypted"'
code_of platter convert -O raw a.qcow2 b.raw
left_here
