# SPDX-License-Identifier: MIT
# shellcheck shell=bash
mkdir sub
qemu-img create -q -f raw sub/base.raw 10M
qemu-img create -q -f qcow2 -b base.raw -F raw sub/mid.qcow2
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 sub/top.qcow2
same info sub/top.qcow2
same info --output=json sub/top.qcow2
same info --backing-chain sub/top.qcow2
same info --backing-chain --output=json sub/top.qcow2
platter info sub/top.qcow2 | grep backing
# The backing file need not be there, unless the chain is asked for.
rm sub/base.raw
same info sub/mid.qcow2
same info --backing-chain sub/top.qcow2
code_of platter info --backing-chain sub/top.qcow2
