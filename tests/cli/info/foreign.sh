# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Images of formats we do not read are not taken as raw, unless that is said.
for format in vdi vpc vhdx qed parallels qcow; do
    qemu-img create -q -f $format a.$format 10M
    code_of platter info a.$format
    platter info -f raw a.$format | sed -n 2p
done
qemu-img create -q --object secret,id=s,data=abc -f luks -o key-secret=s,iter-time=10 a.luks 1M
code_of platter info a.luks
