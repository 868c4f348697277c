# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The content ID that a parent is about to get stands in the child no longer than it must.
platter create -q -f vmdk base.vmdk 4M
qemu-io -f vmdk -c 'write -P 1 0 1M' base.vmdk >/dev/null
platter create -q -f vmdk -b base.vmdk -F vmdk top.vmdk
qemu-io -f vmdk -c 'write -P 2 64k 64k' top.vmdk >/dev/null
# QEMU writes an ID without its leading zeros, and leaves what was behind the text that became shorter.
until grep -qaE '^CID=[0-9a-f]{8}$' top.vmdk; do
    qemu-io -f vmdk -c 'write -P 2 64k 64k' top.vmdk >/dev/null
done

echo "== a parent that cannot be written after all"
mkdir sound
cp base.vmdk top.vmdk sound
truncate -s -64k base.vmdk
cp base.vmdk cut.vmdk
code_of platter commit top.vmdk
cmp top.vmdk sound/top.vmdk && cmp base.vmdk cut.vmdk && echo "nothing changed"

echo "== done"
cd sound
platter commit top.vmdk
tr -d '\0' <top.vmdk | count -a nextParentCID
cd ..

echo "== left by one that was cut short: it is the parent's then, and of no other that comes"
platter create -q -f vmdk other.vmdk 4M
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b other.vmdk -F vmdk text.vmdk
cid=$(platter info --output=json base.vmdk | sed -n 's/.*"cid": \([0-9]*\).*/\1/p')
printf 'ddb.platter.nextParentCID = "%08x"\n' "$cid" >>text.vmdk
cp sound/base.vmdk third.vmdk
cp base.vmdk other.vmdk
platter info text.vmdk --backing-chain | count '^image'
platter create -q -f vmdk new.vmdk 4M
platter rebase -u -b new.vmdk -F vmdk text.vmdk
count nextParentCID <text.vmdk
cp base.vmdk new.vmdk
code_of platter digest text.vmdk 2>&1 | sed 's/: parentCID is.*//'
