# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 base.qcow2 20M
same create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
same create -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2
same create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 40M
same create -f qcow2 -b base.qcow2 top.qcow2
code_of platter create -f qcow2 -b base.qcow2 top.qcow2
same create -f qcow2 -b nope.qcow2 -F qcow2 top.qcow2
code_of platter create -f qcow2 -b nope.qcow2 -F qcow2 top.qcow2
same create -u -f qcow2 -b nope.qcow2 -F qcow2 top.qcow2 5G
same create -u -f qcow2 -b nope.qcow2 -F qcow2 top.qcow2
same create -f raw -b base.qcow2 -F qcow2 top.raw
code_of platter create -f raw -b base.qcow2 -F qcow2 top.raw
# Named relative to the new image.
mkdir sub
qemu-img create -q -f qcow2 sub/base2.qcow2 30M
same create -f qcow2 -b base2.qcow2 -F qcow2 sub/top.qcow2
left_here
