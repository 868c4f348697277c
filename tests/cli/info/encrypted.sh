# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q --object secret,id=s,data=abc -f qcow2 \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a.qcow2 1M
platter info a.qcow2 | grep encrypted
platter info --output=json a.qcow2 | grep '"encrypted"'
