# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A compressed backing file.
data 200K a.raw
platter convert -f raw -O qcow2 a.raw base.qcow2
zstd -q --rm base.qcow2
platter create -q -f qcow2 -b base.qcow2.zst -F qcow2 over.qcow2
platter compare -f raw -F qcow2 a.raw over.qcow2
platter info --backing-chain over.qcow2 | grep '^image\|^backing\|^compressed'
echo "--- it is not committed to"
code_of platter commit over.qcow2
echo "--- nor is it part of a loop"
platter create -q -f qcow2 -b loop.zst -F qcow2 -u loop 1M
zstd -q --rm loop -o loop.zst
code_of platter digest loop.zst
echo "--- nor damaged in silence"
put 3000 '\x55\xaa\x55' base.qcow2.zst
code_of platter digest over.qcow2
