# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What starts like a qcow2 is one, and if it is damaged that is an error and not raw.
data 64K a.raw
put 0 'QFI\0373\0\0\0\003' a.raw
code_of platter convert -O raw a.raw b.raw
platter convert -f raw -O raw a.raw b.raw
cmp a.raw b.raw
