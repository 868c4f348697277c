# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A volume of LUKS: what it had it has, new space is noise or, where it is written, zeros; qemu-img agrees.
printf one >one.key
data 300K part
key=(--key-file one.key)
secret=(--object secret,id=s,file=one.key --image-opts)
opts=driver=luks,file.filename=a.luks,key-secret=s
read_zeros() { qemu-io "${secret[@]}" -c "read -P 0 $1 $2" $opts | count '^read'; }
platter convert -f raw -O luks -o iter-time=1 --new-key-file one.key part a.luks
same_part() { qemu-img compare "${secret[@]}" $opts driver=raw,file.filename=part; }
same_part
platter resize "${key[@]}" a.luks 1M
platter info --output=json a.luks | count '"virtual-size": 1048576'
truncate -s 1M part
platter resize -q "${key[@]}" --preallocation=full a.luks 3M
read_zeros 1M 2M
before=$(stat -c %b a.luks)
platter resize -q "${key[@]}" --preallocation=falloc a.luks 4M
[ $(($(stat -c %b a.luks) - before)) -ge 2048 ] && echo takes its room
qemu-img resize -q --shrink "${secret[@]}" $opts 3M
platter info --output=json a.luks | count '"virtual-size": 3145728'
code_of platter resize "${key[@]}" a.luks 307200
platter resize -q --shrink "${key[@]}" a.luks 307200
truncate -s 307200 part
same_part
stat -c %s a.luks
code_of platter resize "${key[@]}" a.luks 400000
code_of platter resize "${key[@]}" --preallocation=metadata a.luks 1M
code_of platter resize "${key[@]}" a.luks $((0x7fffffffffffffff - 511))
code_of platter resize a.luks 1M
stat -c %s a.luks
