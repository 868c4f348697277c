# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A raw disk that ends inside a sector is filled up with zeros, also where something else lies in the
# target or below it.
data 66048 base.raw
data 65537 a.raw 2
cp a.raw filled.raw
truncate -s 66048 filled.raw
platter convert -f raw -O qcow2 -B base.raw -F raw a.raw top.qcow2
platter compare -f qcow2 -F raw top.qcow2 filled.raw
for options in '' -c; do
    qemu-img create -q -f qcow2 -b base.raw -F raw there.qcow2
    # shellcheck disable=SC2086
    platter convert -n $options -f raw -O qcow2 a.raw there.qcow2
    platter compare -f qcow2 -F raw there.qcow2 filled.raw
done
# A raw target counts in bytes.
cp base.raw there.raw
platter convert -n -f raw -O raw a.raw there.raw
cmp there.raw <(cat a.raw <(tail -c +65538 base.raw))
