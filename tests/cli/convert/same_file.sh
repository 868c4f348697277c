# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Onto itself.
data 1M a.raw
cp a.raw old.raw
code_of platter convert -n -f raw -O raw a.raw a.raw
cmp a.raw old.raw
# Onto the data file of the source.
qemu-img create -q -f qcow2 -o data_file=data.raw b.qcow2 1M
cp data.raw old.raw
code_of platter convert -U -O qcow2 b.qcow2 data.raw
code_of platter convert -U -n -f qcow2 -O raw b.qcow2 data.raw
cmp data.raw old.raw
