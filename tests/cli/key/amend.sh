# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# amend changes key slots as qemu-img's does.
for k in one two; do printf %s $k >$k.key; done
secrets=(--object "secret,id=one,file=one.key" --object "secret,id=two,file=two.key")
opened() { echo "driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=$1"; }
amend() { platter amend "${secrets[@]}" --image-opts "$(opened "$1")" -o "$2"; }
states() { platter key list a.qcow2 | awk 'NR > 1 { printf "%s ", $2 } END { print "" }'; }
platter create -q -f qcow2 --object secret,id=one,file=one.key \
    -o encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=1 a.qcow2 1M
amend one encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=1
amend two encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=1,encrypt.keyslot=7
states
code_of amend one encrypt.state=active,encrypt.new-secret=two,encrypt.keyslot=7
amend one encrypt.state=inactive,encrypt.old-secret=two
states
code_of amend two encrypt.state=active,encrypt.new-secret=two
code_of amend one encrypt.state=inactive,encrypt.keyslot=0
code_of amend one encrypt.state=inactive
code_of amend one encrypt.state=inactive,encrypt.keyslot=0,encrypt.old-secret=one
code_of amend one encrypt.state=active
code_of amend one encrypt.state=maybe,encrypt.new-secret=two
code_of amend one encrypt.keyslot=9,encrypt.state=inactive
code_of amend one encrypt.state=active,encrypt.new-secret=two,lazy_refcounts=on
code_of amend one encrypt.state=active,encrypt.new-secret=three
states
