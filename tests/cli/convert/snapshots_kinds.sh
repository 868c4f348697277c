# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Snapshots go along into a compressed image, over a backing file, and out of and into encrypted ones.
for k in one two; do printf %s $k >$k.key; done
data 200000 state
repeated 3M 'text that packs well' >text
qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 20M
qemu-io -c 'write -P 8 0 20M' base.qcow2 >out
# make [options]: an image over that backing file, with snapshots of three sizes.
make() {
    platter create -q -f qcow2 -F qcow2 -b base.qcow2 --new-key-file one.key "$@" a.qcow2 16M
    write -s text 0 3M -P 1 4M 2M
    platter snapshot create --key-file one.key a.qcow2 one
    write -P 2 1M 64k -z 2M 64k -P 8 4M 64k
    platter snapshot state --key-file one.key --import=state a.qcow2 two
    platter resize -q --key-file one.key a.qcow2 24M
    write -P 3 23M 64k -s text 16M 3M
    platter snapshot create --key-file one.key a.qcow2 three
    platter snapshot delete --key-file one.key a.qcow2 one
    platter resize -q --shrink --key-file one.key a.qcow2 12M
    write -P 4 11M 64k
    platter snapshot create --key-file one.key a.qcow2 four
    write -P 5 0 64k
    platter bitmap --key-file one.key --add a.qcow2 monday
    write -P 6 8M 64k
}
# named IMAGE: as --image-opts has it.
named() {
    local key=
    if qemu-img info "$1" | grep -q '^encrypted: yes'; then key=,encrypt.key-secret=k; fi
    echo "driver=qcow2,file.filename=$1$key"
}
# write KIND ARG OFFSET LENGTH ...: by qemu-io, encrypted or not.
write() {
    local commands=()
    while [ $# -gt 0 ]; do
        if [ "$1" = -z ]; then
            commands+=(-c "write -z $2 $3")
            shift 3
        else
            commands+=(-c "write $1 $2 $3 $4")
            shift 4
        fi
    done
    qemu-io --object secret,id=k,file=one.key --image-opts "$(named a.qcow2)" "${commands[@]}" >out
}
# try OPTIONS...: the same views, the same state, and nothing is wrong with the copy.
try() {
    rm -f b.qcow2
    platter convert --snapshots --bitmaps -O qcow2 --key-file one.key --new-key-file two.key "$@" a.qcow2 b.qcow2
    qemu-img check -q --object secret,id=k,file=two.key --image-opts "$(named b.qcow2)"
    platter check -q --data --key-file two.key b.qcow2
    platter snapshot list --output=json a.qcow2 >theirs
    platter snapshot list --output=json b.qcow2 | cmp - theirs
    for view in '' @two @three @four; do
        platter digest --key-file one.key a.qcow2$view | cut -d ' ' -f 1 >theirs
        platter digest --key-file two.key b.qcow2$view | cut -d ' ' -f 1 | cmp - theirs
    done
    platter snapshot state --key-file two.key --export=- b.qcow2 two | cmp - state
    platter map --bitmap monday --key-file two.key b.qcow2
    echo "the same, in $(($(stat -c %s b.qcow2) / 1048576)) MiB: $*"
}
make
try
try -c
try -c -o compression_type=zstd,cluster_size=16k
try -B base.qcow2 -F qcow2
try -B base.qcow2 -F qcow2 -c
try -o encrypt.format=luks,encrypt.iter-time=1
try -B base.qcow2 -F qcow2 -o encrypt.format=luks,encrypt.iter-time=1,extended_l2=on
rm a.qcow2
make -o encrypt.format=luks,encrypt.iter-time=1
try
try -o encrypt.format=luks,encrypt.iter-time=1
try -c -B base.qcow2 -F qcow2
code_of platter convert --snapshots -c -O qcow2 --key-file one.key --new-key-file two.key \
    -o encrypt.format=luks,encrypt.iter-time=1 a.qcow2 c.qcow2
code_of platter convert --snapshots -O qcow2 -o compat=0.10 --key-file one.key a.qcow2 c.qcow2
code_of platter convert --snapshots -O qcow2 -o data_file=c.raw --key-file one.key a.qcow2 c.qcow2
left_here
