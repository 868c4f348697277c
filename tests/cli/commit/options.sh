# SPDX-License-Identifier: MIT
# shellcheck shell=bash
same commit
same commit nope.vmdk
platter create -q -f vmdk base.vmdk 2M
same commit base.vmdk
code_of platter commit base.vmdk
platter create -q -f vmdk -b base.vmdk -F vmdk mid.vmdk
platter create -q -f vmdk -b mid.vmdk -F vmdk top.vmdk 4M
qemu-io -f vmdk -c 'write -P 3 0 4M' top.vmdk >/dev/null
code_of platter commit -t bogus top.vmdk
code_of platter commit -b nope.vmdk top.vmdk
code_of platter commit -b top.vmdk top.vmdk
code_of platter commit -b other.vmdk top.vmdk top.vmdk
# Kept, and the parent grown to its size.
platter commit -d top.vmdk
platter info mid.vmdk | grep virtual
platter map top.vmdk
platter compare top.vmdk mid.vmdk
# Down to the bottom: what is between is of no use, and says so.
platter commit -b base.vmdk top.vmdk
qemu-io -r -f vmdk -c 'read -P 3 0 4M' base.vmdk | grep -c ^read
code_of platter info mid.vmdk --backing-chain 2>&1 | sed 's/: parentCID is.*//'
# ... unless it is meant: so it is done again if it was cut short.
code_of platter commit -q -b base.vmdk top.vmdk 2>&1 | sed 's/: parentCID is.*//'
platter commit --ignore-cid -b base.vmdk top.vmdk
platter compare --ignore-cid top.vmdk base.vmdk 2>/dev/null
# A parent that was changed: refused, unless it is meant.
platter create -q -f vmdk -b base.vmdk -F vmdk late.vmdk
qemu-io -f vmdk -c 'write -P 5 1M 1M' late.vmdk >/dev/null
qemu-io -f vmdk -c 'write -P 6 0 1M' base.vmdk >/dev/null
code_of platter commit late.vmdk 2>&1 | sed 's/: parentCID is.*//'
platter commit --ignore-cid late.vmdk
qemu-io -r -f vmdk -c 'read -P 6 0 1M' -c 'read -P 5 1M 1M' -c 'read -P 3 2M 2M' late.vmdk | grep -c ^read
