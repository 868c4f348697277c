# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Control characters out of images and names do not reach the terminal.
platter create -q -f qcow2 -u -b $'ev\e[31mil\n.raw' -F raw top.qcow2 1M
platter info top.qcow2 | grep '^backing file:'
qemu-img create -q -f qcow2 snap.qcow2 1M
qemu-img snapshot -c $'s\e]0;title\a' snap.qcow2
platter info snap.qcow2 | count $'\e'
platter info snap.qcow2 | grep -o 's.x1b.0;title.x07'
code_of platter info $'no\e[1mfile\302\233'
code_of platter map top.qcow2 2>&1 | count $'\e'
