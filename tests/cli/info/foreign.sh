# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Images of formats we do not read are not taken as raw, unless that is said.
for format in vdi vpc vhdx qed parallels; do
    qemu-img create -q -f $format a.$format 10M
    code_of platter info a.$format
    platter info -f raw a.$format | sed -n 2p
done
put 0 'LUKS\0272\0276\0\001' a.luks
truncate -s 1M a.luks
code_of platter info a.luks
