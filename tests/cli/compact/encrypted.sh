# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is encrypted for its place is encrypted anew for the next one, whatever memory there is: it is
# copied in whole clusters.
printf secret >key
platter create -q -f qcow2 -o encrypt.format=luks,encrypt.iter-time=10 --new-key-file key a.qcow2 32M
image=driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=s,discard=unmap
fill() {
    for i in {0..19}; do echo "write -P $((i + 1)) ${i}M 1M"; done
    echo 'discard 0 12M'
}
fill | qemu-io --object secret,id=s,file=key --image-opts "$image" >/dev/null
platter digest --key-file key a.qcow2 >right
platter compact --key-file key --memory 7000001 a.qcow2
platter digest --key-file key a.qcow2 | cmp - right
platter check a.qcow2 | head -1
qemu-img check -q --object secret,id=s,file=key --image-opts "$image"
