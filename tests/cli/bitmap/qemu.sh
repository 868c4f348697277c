# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
# The same actions by both on an image each, and the same answers.
qemu-img create -q -f qcow2 a.qcow2 64M
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
qemu-img create -q -f qcow2 other.qcow2 64M
qemu-img bitmap --add -g 4k other.qcow2 else
qemu-io -c 'write 3M 20k' other.qcow2 >/dev/null
truncate -s 1M a.raw
each() {
    cp a.qcow2 theirs.qcow2
    local theirs=0 ours=0
    qemu-img bitmap "$@" theirs.qcow2 $name 2>/dev/null || theirs=$?
    platter bitmap "$@" a.qcow2 $name 2>.err || ours=$?
    if [ $theirs -ne $ours ]; then
        echo "DIFFERENT exit code: $theirs, ours $ours: $*"
        cat .err
    fi
    if [ "$(qemu-img info --output=json a.qcow2 | grep -v actual-size)" = \
        "$(qemu-img info --output=json theirs.qcow2 | sed 's/theirs.qcow2/a.qcow2/' | grep -v actual-size)" ]; then
        echo "same ($ours): $* $name"
    else
        echo "DIFFERENT bitmaps: $*"
    fi
    qemu-img check -q a.qcow2
}
name=b0
each --add
each --add
each --add -g 3k
each --add -g 256
each --add -g 4G
each --disable
each --enable --disable --enable
each --merge nope
each --merge else -b other.qcow2
each --merge else -b other.qcow2 -F qcow2
name=b1
each --remove
each --add --disable -g 512
each --merge b0
each --add --remove
name=b2
each --add --remove
each --clear
name=b0
each --clear
each --remove
name=b1
each --remove
for args in '' 'a.qcow2 b0' '--add' '--add a.qcow2' '--add a.qcow2 b0 c' '--add nope.qcow2 b' '--add old.qcow2 b' '--add -f raw a.raw b' \
    '-g 4k --remove a.qcow2 b' '--remove -b other.qcow2 a.qcow2 b' '--merge x -F qcow2 a.qcow2 b' '--nope a.qcow2 b'; do
    same bitmap $args
done
