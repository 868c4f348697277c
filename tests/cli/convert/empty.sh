# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Disks of no bytes.
: >a.raw
platter convert -f raw -O raw a.raw b.raw
platter convert -f raw -O qcow2 a.raw b.qcow2
qemu-img info b.qcow2 | grep virtual
platter convert -O raw b.qcow2 c.raw
stat -c %s b.raw c.raw
