# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The rest of a larger target is left as it is.
data 1M a.raw
data 2M b.raw 2
cp b.raw b.old
platter convert -n -f raw -O raw a.raw b.raw
head -c 1M b.raw | cmp - a.raw
cmp -i 1048576 b.raw b.old
# Also where the end of the source falls into a cluster, which is then not packed, and what is left of
# it comes from a backing file.
data 256K base.raw 3
data 100K short.raw 4
qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
platter convert -n -c -f raw -O qcow2 short.raw top.qcow2
platter convert -O raw top.qcow2 back.raw
cmp back.raw <(cat short.raw <(tail -c +102401 base.raw))
