# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Where snapshots differ, by their tables.
qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 16M
qemu-io -c 'write -P 1 0 1M' a.qcow2 >out
platter snapshot create a.qcow2 one
qemu-io -c 'write -P 2 64k 8k' -c 'write -z 128k 4k' -c 'write -P 1 15M 64k' a.qcow2 >out
platter snapshot create a.qcow2 two
platter resize -q a.qcow2 20M
qemu-io -c 'write -P 3 19M 4k' -c 'discard 15M 64k' a.qcow2 >out
platter snapshot diff a.qcow2 one two
platter snapshot diff a.qcow2 two one
platter snapshot diff a.qcow2 one one
platter snapshot diff a.qcow2 two
platter snapshot diff --summary a.qcow2 one
platter snapshot diff --output=json a.qcow2 one two
platter snapshot diff --output=json --summary a.qcow2 one two | python3 -m json.tool --compact
platter snapshot diff --output=json a.qcow2 one one | python3 -m json.tool --compact
# Whoever takes over what is told has the other disk.
platter snapshot read a.qcow2 one had.raw
truncate -s 20M had.raw
platter convert -O raw a.qcow2 now.raw
platter snapshot diff --output=json a.qcow2 one | python3 -c 'import json, sys
had, now = open("had.raw", "r+b"), open("now.raw", "rb")
for e in json.load(sys.stdin)["extents"]:
    had.seek(e["start"]), now.seek(e["start"])
    had.write(now.read(e["length"]))'
cmp had.raw now.raw && echo same
# Subclusters, and what a backing file shows.
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k -F qcow2 -b a.qcow2 b.qcow2
platter snapshot create b.qcow2 one
qemu-io -c 'write -P 5 4k 2k' -c 'write -z 1M 2k' b.qcow2 >out
platter snapshot diff b.qcow2 one
platter snapshot create b.qcow2 two
platter snapshot diff b.qcow2 two one
