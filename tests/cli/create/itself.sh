# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image is never made over itself: what it replaces is what it would need.
platter create -q -f qcow2 a.qcow2 1M
cp a.qcow2 a.old
ln -s a.qcow2 link.qcow2
ln a.qcow2 hard.qcow2
for name in a.qcow2 link.qcow2 hard.qcow2 "$PWD/a.qcow2"; do
    code_of platter create -q -f qcow2 -b "$name" -F qcow2 a.qcow2
    code_of platter create -q -u -f qcow2 -b "$name" -F qcow2 a.qcow2 1M
done
code_of platter create -q -u -f qcow2 -b new.qcow2 -F qcow2 new.qcow2 1M
code_of platter convert -f raw -O qcow2 -B a.qcow2 -F qcow2 a.old a.qcow2
cmp a.qcow2 a.old
left_here
# A name that opening would take for a protocol is refused while it can still be put right.
cp a.old pro:to.qcow2
code_of platter create -q -f qcow2 -b pro:to.qcow2 -F qcow2 top.qcow2
platter create -q -f qcow2 -b ./pro:to.qcow2 -F qcow2 top.qcow2
platter compare top.qcow2 ./pro:to.qcow2
