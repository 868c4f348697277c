# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What cannot be, and where keys may not come from.
printf one >one.key
printf 'b25l\n' >one.base64
truncate -s 1M a.raw
code_of platter key
code_of platter key list
code_of platter key melt a.raw
code_of platter key list -f raw a.raw
code_of platter key add -f raw --key-file one.key a.raw
code_of platter create -q -f qcow2 -o encrypt.format=luks a.qcow2 1M
code_of platter create -q -f qcow2 -o encrypt.format=aes --new-key-file one.key a.qcow2 1M
code_of platter create -q -f qcow2 -o encrypt.iter-time=1 a.qcow2 1M
code_of platter create -q -f luks -o cipher-alg=cast5-128 --new-key-file one.key a.luks 1M
code_of platter create -q -f luks -o ivgen-hash-alg=sha1 --new-key-file one.key a.luks 1M
platter create -q -f qcow2 -o encrypt.format=luks,encrypt.iter-time=1 --new-key-file one.key a.qcow2 1M
code_of platter digest a.qcow2
code_of platter digest --key-file none.key a.qcow2
code_of platter digest --key-env NO_SUCH_NAME a.qcow2
code_of platter digest --key-file one.base64 a.qcow2
code_of platter digest --kdf-limit 10 --key-file one.key a.qcow2
code_of platter digest --object secret,id=s,data=one a.qcow2
code_of platter digest --object secret,id=s,file=one.key,format=base64 a.qcow2
code_of platter digest --object secret,id=s,file=one.key,keyid=k a.qcow2
code_of platter digest --object secret,id=s,file=one.key,for=raw a.qcow2
code_of platter digest --object iothread,id=s a.qcow2
code_of platter key add --slot 8 --key-file one.key a.qcow2
code_of platter key add --iter-time 0 --key-file one.key a.qcow2
code_of platter key add --key-file one.key a.qcow2
code_of platter convert -c -O qcow2 -o encrypt.format=luks,encrypt.iter-time=1 --new-key-file one.key \
    -f raw a.raw b.qcow2
head -c 65537 /dev/zero >large.key
code_of platter digest --key-file large.key a.qcow2
left_here
