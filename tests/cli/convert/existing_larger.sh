# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The rest of a larger target is left as it is.
data 1M a.raw
data 2M b.raw 2
cp b.raw b.old
platter convert -n -f raw -O raw a.raw b.raw
head -c 1M b.raw | cmp - a.raw
cmp -i 1048576 b.raw b.old
