# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# No chain is made longer than what opens.
platter create -q -f qcow2 1.qcow2 1M
for i in {2..200}; do
    platter create -q -u -f qcow2 -b $((i - 1)).qcow2 -F qcow2 $i.qcow2 1M
done
platter compare 200.qcow2 1.qcow2
code_of platter create -f qcow2 -b 200.qcow2 -F qcow2 201.qcow2
code_of platter convert -O qcow2 -B 200.qcow2 -F qcow2 1.qcow2 201.qcow2
left_here | grep -c .
