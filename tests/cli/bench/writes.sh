# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is written, where: around and around, in steps, or anywhere.
pattern() { od -An -v -w4096 -t x1 "$1" | cut -c 1-6 | uniq -c; }
truncate -s 64k a.raw
platter bench -q -f raw -w -c 3 -o 8k --pattern=0x11 a.raw
pattern a.raw
platter bench -q -f raw -w -c 20 -S 16k --pattern=34 a.raw
pattern a.raw
platter bench -q -f raw -w -c 500 --random -d 9 --flush-interval=10 --pattern=51 a.raw
pattern a.raw
platter bench -q -f raw -w -c 500 --random -o 60k --pattern=68 a.raw
pattern a.raw
