# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A step that does not divide the size comes to other places each time around, as the peer's does.
truncate -s 1M ours.raw
truncate -s 1M theirs.raw
platter bench -q -w -f raw -c 6 -s 4096 -S 409600 --pattern=7 ours.raw
qemu-img bench -q -w -f raw -c 6 -s 4096 -S 409600 --pattern=7 theirs.raw >/dev/null
cmp ours.raw theirs.raw && echo "the same places"
platter map -f raw ours.raw
