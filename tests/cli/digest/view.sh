# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
qemu-img snapshot -c first a.qcow2
qemu-io -c 'write -P 7 0 1M' a.qcow2 >/dev/null
platter digest -f raw a.raw
platter digest a.qcow2@first
platter digest --view=first a.qcow2
