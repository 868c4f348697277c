# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter create -f qcow2 -o help
platter create -f qcow2 -o '?' a.qcow2 | head -2
platter create -f vmdk -o cluster_size=1,help
platter create -o help
code_of platter create -f nope -o help
left_here
