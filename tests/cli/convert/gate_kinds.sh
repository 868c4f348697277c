# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Never a device, another protocol, or a description.
for name in /dev/zero nbd:localhost:10809 'json:{"driver":"null-co"}' http://localhost/x; do
    qemu-img create -q -u -f qcow2 -b "$name" -F raw top.qcow2 1M
    code_of platter convert -O raw top.qcow2 b.raw
done
left_here
# What is allowed on servers is a place: what else a name says there (keys of ours, whom to trust, files
# to read a secret from) only to the letter.
allow=(--allow s3://b/ --allow nbds://h --allow rbd:pool --allow 'nbd+unix:///?socket=none')
for name in 's3://b/x?endpoint=http://localhost:1&access_key=file:/etc/passwd&secret_key=x' \
    'nbds://h/x?tls-verify-peer=off' rbd:pool/x:conf=theirs 'rbd:pool/x?conf=theirs' \
    'nbd+unix:///?socket=none/..' 'nbd+unix:///?socket=none'; do
    qemu-img create -q -u -f qcow2 -b "$name" -F raw top.qcow2 1M
    code_of platter digest "${allow[@]}" top.qcow2
done
