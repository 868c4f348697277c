# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A signal ends it between two steps: the image is whole, and the rest can be done later.
qemu-img create -q -f qcow2 -o cluster_size=512 a.qcow2 16M
qemu-io -c 'write -P 1 0 12M' a.qcow2 >/dev/null
qemu-img snapshot -c one a.qcow2
qemu-io -c 'write -P 2 0 6M' a.qcow2 >/dev/null
qemu-img snapshot -c two a.qcow2
qemu-img snapshot -d one a.qcow2
platter digest a.qcow2 >right
before=$(stat -c %s a.qcow2)
for tenths in 1 2; do
    platter compact -q a.qcow2 2>said &
    sleep 0.$tenths
    code=0
    if kill -TERM $! 2>/dev/null; then wait $! || code=$?; else wait $!; fi
    case $code in 0 | 143) ;; *) echo "exit code $code" ;; esac
    sed '/^platter: interrupted: the image is whole, and can be compacted again$/d' said
    qemu-img check -q a.qcow2
    platter digest a.qcow2 | cmp - right
done
platter compact -q a.qcow2
platter compact -n a.qcow2 | sed 's/needs its .*/needs its size/'
[ "$(stat -c %s a.qcow2)" -lt "$before" ] && echo smaller
