# For people, and with a state and names somewhere else.
data 1M a.raw
truncate -s 2M a.raw
mkdir there
platter migrate prepare -f raw --state there/st -o cluster_size=4k --size 3M a.raw vm.qcow2
platter migrate status --output=human --state there/st vm.qcow2 | sed "s|$PWD|DIR|"
code_of platter migrate status --output=human vm.qcow2
platter migrate execute --state there/st -m 3 -r 100M vm.qcow2
platter migrate status --output=human --state there/st vm.qcow2 | grep -E '^(state|left|written)'
platter migrate commit --state there/st vm.qcow2
left_here
truncate -s 3M a.raw
platter compare -f raw a.raw vm.qcow2
platter info vm.qcow2 | grep cluster_size
