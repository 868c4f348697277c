# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A name inside an image leads nowhere but to its own folder, unless it is allowed.
mkdir images elsewhere
data 1M elsewhere/base.raw
qemu-img create -q -f qcow2 -b "$PWD/elsewhere/base.raw" -F raw images/top.qcow2
qemu-img create -q -f qcow2 -b ../elsewhere/base.raw -F raw images/top2.qcow2
code_of platter convert -O raw images/top.qcow2 b.raw
code_of platter convert -O raw images/top2.qcow2 b.raw
for allow in elsewhere elsewhere/base.raw "$PWD/elsewhere"; do
    platter convert --allow "$allow" -O raw images/top.qcow2 b.raw
    cmp b.raw elsewhere/base.raw
    platter convert --allow nowhere --allow "$allow" -O raw images/top2.qcow2 b.raw
    cmp b.raw elsewhere/base.raw
done
