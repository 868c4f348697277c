# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image that names files outside of its folder does not get to know which of them there are.
mkdir -p images/inside elsewhere
touch elsewhere/there
ln -s ../elsewhere/there images/link-there
ln -s ../elsewhere/gone images/link-gone
ln -s link-gone images/link-link
ln -s round images/round
ln -s ../elsewhere images/folder
for name in ../elsewhere/there ../elsewhere/gone ../elsewhere/gone/gone /gone "$PWD/elsewhere/there" \
    link-there link-gone link-link folder/there folder/gone round inside/../../elsewhere/gone \
    gone inside/gone inside/../gone gone/../../elsewhere/gone; do
    qemu-img create -q -f qcow2 -u -b "$name" -F raw images/top.qcow2 1M
    code_of platter map images/top.qcow2 2>&1 | sed "s|\"$name\"|NAME|; s|$PWD|DIR|"
done

echo "-- where it may look"
for name in ../elsewhere/gone link-gone folder/gone; do
    qemu-img create -q -f qcow2 -u -b "$name" -F raw images/top.qcow2 1M
    code_of platter map --allow elsewhere images/top.qcow2 2>&1
done
