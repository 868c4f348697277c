# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
qemu-img create -q -f qcow2 a.qcow2 1M
for args in '--target-is-zero a.qcow2 b' '-n -o cluster_size=4k a.qcow2 b' '-C --salvage a.qcow2 b' \
    '-C -S 4k a.qcow2 b' '-S 3 a.qcow2 b' '-S 32M a.qcow2 b' '-t nope a.qcow2 b' '-T nope a.qcow2 b' \
    '-O nope a.qcow2 b' '-O qcow2 -o nope=1 a.qcow2 b' '-c a.qcow2 b' '-O qcow2 -B a.qcow2 a.qcow2 b' \
    '-O raw -B a.qcow2 -F qcow2 a.qcow2 b' '-l s1 a.qcow2 a.qcow2 b' '-l s1 a.qcow2 b' '-n a.qcow2 b' \
    '-r nope a.qcow2 b' 'nope.qcow2 b' 'a.qcow2 nope/b' 'a.qcow2 .'; do
    same convert $args
    rm -f b
    code_of platter convert $args
    left_here | sed '/^a.qcow2$/d'
done
code_of platter convert -l s1 --view s1 a.qcow2 b
left_here
