# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What cannot be read anywhere is copied, where that is allowed.
data 100K a.raw
truncate -s 40M a.raw
put 41000000 'the end' a.raw
zstd -qk a.raw
xz -0 -k a.raw
gzip -k a.raw
digest() { platter digest -q "$@" | sed 's/ .*//'; }
digest -f raw a.raw >right
echo "--- single frames"
for image in a.raw.zst a.raw.xz; do
    code_of platter digest $image
    code_of platter info $image
    mkdir spool
    digest --spool spool $image | cmp - right
    platter info --spool=spool $image | grep '^virtual'
    rmdir spool
    code_of platter digest --spool spool $image
done
echo "--- checkpoints need no copy"
digest a.raw.gz | cmp - right
platter info a.raw.gz | grep '^virtual\|^compressed'
echo "--- frames"
platter vma repack -q a.raw.xz again.zst
digest again.zst | cmp - right
platter info again.zst | grep '^virtual\|^compressed'
left_here
