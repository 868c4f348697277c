# A migration that is given up leaves nothing.
data 1M a.raw
for target in vm.qcow2 vm.raw; do
    [ $target = vm.raw ] && format=raw || format=qcow2
    platter migrate prepare -f raw -O $format a.raw $target
    platter migrate execute $target
    platter migrate abort $target
    left_here
    code_of platter migrate abort $target
done
echo "--- with nothing to keep"
platter migrate prepare -f raw a.raw vm.qcow2
platter migrate abort --keep-writes w.qcow2 vm.qcow2
left_here
