# SPDX-License-Identifier: MIT
qemu-img create -q -f qcow2 a.qcow2 10M
platter bitmap list a.qcow2
platter bitmap list --output=json a.qcow2
platter bitmap --add -g 64k a.qcow2 $'evil\e[31m'
platter bitmap --add -g 1M --disable a.qcow2 coarse
qemu-io -c 'write 1M 100k' -c 'write -z 9M 1M' a.qcow2 >/dev/null
platter bench -w -q -c 2 -o 5M -S 2M -s 4096 a.qcow2
platter bitmap --merge $'evil\e[31m' a.qcow2 coarse
platter bitmap list a.qcow2
platter bitmap list --output=json a.qcow2
platter map --bitmap coarse a.qcow2
platter map --bitmap coarse --output=json a.qcow2
platter map --bitmap coarse --output=json -s 3M -l 3M a.qcow2
code_of platter map --bitmap nope a.qcow2
platter snapshot -c s a.qcow2
code_of platter map --bitmap coarse a.qcow2@s
code_of platter bitmap list
truncate -s 1M a.raw
platter bitmap list -f raw a.raw
