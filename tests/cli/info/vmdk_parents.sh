# SPDX-License-Identifier: MIT
# A parent is found where its name leads to, else beside the child, else in the folder of that name beside
# the child's; and it must be the one that the child was made over.
mkdir vm base
qemu-img create -q -f vmdk -o subformat=monolithicFlat base/Base.vmdk 1M
cid=0badf00d
sed -i "s/^CID=.*/CID=$cid/" base/Base.vmdk
sed "s/^CID=.*/CID=11111111/" base/Base.vmdk >base/other.vmdk

# child HINT [CID]: a flat child, which qemu-img does not make.
child() {
    truncate -s 1M vm/child-flat.vmdk
    printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 "parentCID=${2:-$cid}" \
        'createType="custom"' "parentFileNameHint=\"$1\"" 'RW 2048 FLAT "child-flat.vmdk" 0' >vm/child.vmdk
}
names() {
    platter info --backing-chain "$@" >told || return
    sed -n 's/^image: //p' told
}

echo "== as it stands there"
child ../base/Base.vmdk
names --allow=base vm/child.vmdk
code_of names vm/child.vmdk

echo "== in the folder of that name"
for hint in '/vmfs/volumes/5f-6/base/Base.vmdk' 'C:\machines\base\Base.vmdk' 'vsan://12/base/base.VMDK' \
    '[store] base/Base.vmdk' '[store] Base.vmdk'; do
    child "$hint"
    code_of names --allow=base vm/child.vmdk
done
code_of names vm/child.vmdk

echo "== beside the child, where another one of that name is not taken"
cp base/Base-flat.vmdk vm
cp base/other.vmdk vm/Base.vmdk
code_of names --allow=base vm/child.vmdk
rm vm/Base.vmdk
cp base/* vm
names vm/child.vmdk
child 'D:\elsewhere\child.vmdk'
code_of names vm/child.vmdk

echo "== a name that can be none of this host's, beside the child"
child "/vmfs/$(printf '%0300d' 0)/Base.vmdk"
names vm/child.vmdk
ln -s round vm/round
child round/Base.vmdk
names vm/child.vmdk

echo "== another content ID"
child Base.vmdk 00000bad
code_of names vm/child.vmdk
names --ignore-cid vm/child.vmdk
child Base.vmdk fffffffe
code_of names vm/child.vmdk
sed -i 's/^CID=.*/CID=fffffffe/' vm/Base.vmdk
names vm/child.vmdk

echo "== an ID, but no name; control characters"
child Base.vmdk fffffffe
sed -i /parentFileNameHint/d vm/child.vmdk
code_of names vm/child.vmdk
child $'Base\001.vmdk'
code_of names vm/child.vmdk
