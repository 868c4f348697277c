# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What lies below a backing file is opened as ever: in its folder, or where --allow says.
mkdir one two
platter create -q -f qcow2 one/base.qcow2 2M
qemu-img create -q -f qcow2 -b ../one/base.qcow2 -F qcow2 two/middle.qcow2
code_of platter create -q -f qcow2 -b two/middle.qcow2 -F qcow2 top.qcow2
platter create -q --allow one -f qcow2 -b two/middle.qcow2 -F qcow2 top.qcow2
platter info --allow one top.qcow2 | grep virtual
