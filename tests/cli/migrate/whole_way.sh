# From prepare to commit, into each kind of target; the source stays what it is.
data 3M a.raw
truncate -s 5M a.raw
sum=$(sha256sum <a.raw)
told() {
    platter migrate status --output=json "$1" | grep -E '"(state|left|copied|written|owner|format|missing-ranges)"'
}
for target in vm.qcow2 vm.raw; do
    [ $target = vm.raw ] && format=raw || format=qcow2
    echo "--- $target"
    platter migrate prepare -f raw -O $format a.raw $target
    left_here
    told $target
    echo "--- it is there, and it is not complete"
    code_of platter migrate prepare -f raw -O $format a.raw $target
    code_of platter migrate commit $target
    echo "--- copied"
    platter migrate execute $target
    told $target
    platter migrate commit $target
    left_here
    platter compare -f raw -F $format a.raw $target
    code_of platter migrate status --output=human $target
    rm $target
done
[ "$(sha256sum <a.raw)" = "$sum" ] && echo "the source is what it was"
