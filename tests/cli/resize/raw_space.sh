# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is new reads as zeros, and takes as much room as was asked for.
data 1M a.raw
cp a.raw start.raw
platter resize -q -f raw a.raw 9M
platter resize -q -f raw --preallocation=falloc a.raw 10M
platter resize -q -f raw --preallocation=full a.raw 11M
[ "$(stat -c %b a.raw)" -lt 8192 ] && [ "$(stat -c %b a.raw)" -ge 6144 ] && echo as much as asked
cmp -n 1048576 a.raw start.raw
cmp -i 1048576:0 -n 10485760 a.raw /dev/zero && echo zeros
platter resize -q -f raw --shrink a.raw 1M
cmp a.raw start.raw && echo as at the start
