# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Zeros are not stored, unless asked for.
truncate -s 4M a.raw
data 64K b.raw
dd if=b.raw of=a.raw bs=64K seek=20 conv=notrunc status=none
cat a.raw >dense.raw
platter convert -f raw -O raw dense.raw c.raw
cmp a.raw c.raw
[ "$(du -k c.raw | cut -f1)" -le 128 ] && echo 'sparse'
platter convert -S 0 -f raw -O raw dense.raw c.raw
cmp a.raw c.raw
[ "$(du -k c.raw | cut -f1)" -ge 4096 ] && echo 'dense'
