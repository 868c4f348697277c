# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw 1
data 2M b.raw 2
platter convert -f raw -O qcow2 a.raw c.qcow2
platter convert -O qcow2 c.qcow2 c.qcow2 two.qcow2
cat a.raw a.raw | cmp - <(platter convert -O raw two.qcow2 -)
platter convert -f raw -O raw a.raw b.raw a.raw three.raw
cat a.raw b.raw a.raw | cmp - three.raw
