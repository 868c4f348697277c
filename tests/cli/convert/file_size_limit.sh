# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A limit on the size of files is an error like a full disk, and leaves nothing.
data 3M a.raw
ulimit -f 1000
for options in subformat=monolithicSparse subformat=monolithicFlat subformat=streamOptimized; do
    code_of platter convert -f raw -O vmdk -o $options a.raw b.vmdk
done 2>&1 | sed 's/[0-9]* bytes at offset [0-9]*/N/'
left_here
# -c is for what can be written compressed.
code_of platter convert -c -f raw -O vmdk a.raw b.vmdk
left_here
