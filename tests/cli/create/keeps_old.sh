# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A failure leaves what was there before.
echo precious >a.qcow2
code_of platter create -f qcow2 -o cluster_size=3 a.qcow2 1G
code_of platter create -f qcow2 -b nope -F raw a.qcow2 1G
cat a.qcow2
left_here
