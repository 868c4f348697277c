# SPDX-License-Identifier: MIT
# shellcheck shell=bash
same create -f qcow2 a
same create -f nope a 1G
same create -f qcow2 -o nope=1 a 1G
same create -f qcow2 -o size=1G a 1G
same create -f qcow2 a 1G 2G
same create -f qcow2 a -5
code_of platter create -f qcow2 a
code_of platter create -f nope a 1G
code_of platter create -f qcow2 -o nope=1 a 1G
code_of platter create -f qcow2 -o cluster_size=5000 a 1G
# (qemu-img says what it is about to make before it fails; we say it when it is made.)
code_of platter create -f qcow2 -o cluster_size=4M a 1G
code_of platter create -f qcow2 -o refcount_bits=3 a 1G
code_of platter create -f qcow2 -o compat=0.10,extended_l2=on a 1G
code_of platter create -f qcow2 -o preallocation=some a 1G
code_of platter create -f qcow2 -o size=1G a 1G
code_of platter create -f qcow2 a 1x
code_of platter create -f qcow2 nope/a 1G
left_here
