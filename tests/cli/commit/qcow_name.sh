# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A longer name of the backing file stands behind the data of a qcow: when that is committed, the file
# is as short as a new one nevertheless.
long=$(printf 'n%.0s' {1..200}).raw
data 300K "$long"
cp "$long" base.raw
data 200K new.raw 2
truncate -s 300K new.raw
platter create -q -f qcow -b base.raw -F raw over.qcow
platter convert -n -f raw -O qcow --backing-format raw new.raw over.qcow
platter rebase -b "$long" -F raw --backing-format raw over.qcow
platter compare -f raw -F qcow --backing-format raw new.raw over.qcow
platter commit -q --backing-format raw over.qcow
stat -c %s over.qcow
platter check over.qcow | head -n 1
cmp new.raw "$long"
platter compare -f raw -F qcow --backing-format raw new.raw over.qcow
qemu-img info over.qcow | count "backing file: $long"

# A name that ends where the L1 table begins.
cp "$long" base.raw
platter create -q -f qcow -b base.raw -F raw close.qcow
platter commit -q --backing-format raw close.qcow
qemu-img info close.qcow | count 'backing file: base.raw'
