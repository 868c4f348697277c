# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The base of the source given as the target's backing file, but in another format: other bytes lie
# below, so what the source has from its base is stored.
data 256K base.raw
platter convert -f raw -O qcow2 base.raw base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F raw top.qcow2
platter convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 new.qcow2
qemu-img compare top.qcow2 new.qcow2
