# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image may not name the format of its backing file.
qemu-img create -q -f qcow2 base.qcow2 10M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-img rebase -u -b base.qcow2 -F '' top.qcow2
same info top.qcow2
same info --output=json top.qcow2
code_of platter info --backing-chain top.qcow2 >/dev/null
