# SPDX-License-Identifier: MIT
# shellcheck shell=bash
same rebase
same rebase a.vmdk
platter create -q -f vmdk a.vmdk 1M
platter create -q -f vmdk -b a.vmdk -F vmdk b.vmdk
platter create -q -f vmdk -b b.vmdk -F vmdk c.vmdk
platter create -q d.raw 1M
code_of platter rebase b.vmdk
code_of platter rebase -b d.raw -F raw b.vmdk
code_of platter rebase -b d.raw b.vmdk
code_of platter rebase -b nope.vmdk b.vmdk
code_of platter rebase -u -b nope.vmdk b.vmdk
code_of platter rebase -b a.vmdk -F foo b.vmdk
code_of platter rebase -b b.vmdk b.vmdk
code_of platter rebase -b c.vmdk b.vmdk
code_of platter rebase -b a.vmdk -t bogus b.vmdk
code_of platter rebase -b a.vmdk -T bogus b.vmdk
code_of platter rebase -U -b a.vmdk b.vmdk
code_of platter rebase -b a.vmdk -f raw d.raw
platter create -q -f vmdk -o subformat=monolithicFlat f.vmdk 1M
code_of platter rebase -b a.vmdk f.vmdk
# A parent that was changed on purpose, and one that was moved.
qemu-io -f vmdk -c 'write -P 1 0 64k' a.vmdk >/dev/null
code_of platter map b.vmdk 2>&1 | sed 's/: parentCID is.*//'
cp b.vmdk copy.vmdk
platter rebase --ignore-cid -b a.vmdk copy.vmdk
platter compare copy.vmdk a.vmdk
platter rebase -u -b a.vmdk b.vmdk
platter map b.vmdk
mv a.vmdk e.vmdk
code_of platter map b.vmdk
platter rebase -u -b e.vmdk b.vmdk
platter map b.vmdk
platter rebase -u -b '' b.vmdk
platter info b.vmdk | count backing
