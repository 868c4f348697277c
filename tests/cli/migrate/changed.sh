# A source that is not what it was has a code of its own.
data 1M a.raw
platter migrate prepare -f raw a.raw vm.qcow2
touch -d @5 a.raw
code_of platter migrate execute vm.qcow2 2>&1 | sed 's/[0-9]\{9,\}[0-9.]*/N/g'
code_of platter migrate commit vm.qcow2
platter migrate status --output=human vm.qcow2 | grep -E '^(state)'
platter migrate abort vm.qcow2
left_here
echo "--- another file in its place"
platter convert -f raw -O qcow2 a.raw a.qcow2
platter migrate prepare a.qcow2 vm.qcow2
platter convert -f raw -O qcow2 a.raw a.qcow2
code_of platter migrate execute vm.qcow2 2>&1 | sed 's/[0-9]\{4,\}[0-9.]*/N/g'
