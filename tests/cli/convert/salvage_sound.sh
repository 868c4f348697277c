# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nothing to salvage: exit code 0.
data 1M a.raw
platter convert --salvage -f raw -O qcow2 a.raw b.qcow2
qemu-img compare a.raw b.qcow2
