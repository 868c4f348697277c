# What is typed wrongly.
data 64K a.raw
for verb in prepare serve execute status commit abort; do
    code_of platter migrate $verb
    code_of platter migrate $verb one two three
    code_of platter migrate $verb --no-such vm.qcow2
done
code_of platter migrate sing
code_of platter migrate prepare --source-spec a.raw vm.qcow2
code_of platter migrate prepare --source-spec '{}' a.raw vm.qcow2
code_of platter migrate prepare --source-spec @nothing vm.qcow2
code_of platter migrate prepare --source-spec @a.raw vm.qcow2
code_of platter migrate prepare --size x -f raw a.raw vm.qcow2
code_of platter migrate prepare -O vmdk -f raw a.raw vm.vmdk
code_of platter migrate prepare -o no_such=1 -f raw a.raw vm.qcow2
code_of platter migrate prepare a.raw vm.qcow2
code_of platter migrate prepare -f raw nothing vm.qcow2
code_of platter migrate abort --keep-writes a --discard-writes vm.qcow2
code_of platter migrate serve --tcp -k x.sock vm.qcow2
code_of platter migrate execute -r x vm.qcow2
code_of platter migrate execute -m 65 vm.qcow2
echo "--- no migration"
for verb in execute status commit abort; do
    code_of platter migrate $verb vm.qcow2
    code_of platter migrate $verb a.raw
done
platter migrate prepare -o help | count cluster_size
left_here
