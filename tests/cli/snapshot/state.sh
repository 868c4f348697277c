# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The state of a machine goes in and comes out, and stays out of the disk.
data 300000 state
data 1 small 2
qemu-img create -q -f qcow2 a.qcow2 8M
qemu-io -c 'write -P 1 0 1M' a.qcow2 >out
platter snapshot state --import=state a.qcow2 one
qemu-img check -q a.qcow2
platter snapshot state --import=- a.qcow2 two <small
qemu-img check -q a.qcow2
platter snapshot create a.qcow2 three
platter snapshot -l a.qcow2 | cut -c1-34
platter snapshot state --export=out a.qcow2 one && cmp out state
platter snapshot state --export=- a.qcow2 two | cmp - small
platter snapshot state --export=- a.qcow2 three | wc -c
platter snapshot apply a.qcow2 one
qemu-img check -q a.qcow2
platter snapshot delete a.qcow2 one
platter snapshot delete a.qcow2 three
qemu-img check -q a.qcow2
platter snapshot state --export=- a.qcow2 two | cmp - small && echo still there
code_of platter snapshot state a.qcow2 two
code_of platter snapshot state --export=x --import=y a.qcow2 two
code_of platter snapshot state --export=x a.qcow2 nope
code_of platter snapshot state --import=nope a.qcow2 four
code_of platter snapshot state --import=state a.qcow2 two
code_of platter snapshot state --export=nope/x a.qcow2 two
