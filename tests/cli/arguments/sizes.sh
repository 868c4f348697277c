# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sizes are read as qemu-img reads them.
for size in 0 512 5b 5B 1k 1K 1.5k 0x200 010 1.0001k 5.k 1M 1g 2T 1.5 1.7b 1kk 1k5 0x .5k nan 1e3 abc 8E 16E; do
    same create -f raw a.raw $size | sed 's/ size=[0-9]*/&/'
    rm -f a.raw
done
code_of platter map -s 1x a.raw
code_of platter map -l 9E a.raw
code_of platter map -s -5 a.raw
