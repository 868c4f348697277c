# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is no order, and what cannot be carried out, leaves no target.
data 64K in.raw
same dd
same dd if=in.raw
same dd of=out.raw
same dd -f raw bs=0 if=in.raw of=out.raw
same dd -f raw bs=2G if=in.raw of=out.raw
same dd -f raw bs=x if=in.raw of=out.raw
same dd -f raw count=-1 if=in.raw of=out.raw
same dd -f raw seek=1 if=in.raw of=out.raw
same dd -f raw foo if=in.raw of=out.raw
same dd -f raw if=nope.raw of=out.raw
same dd -f raw -O bogus if=in.raw of=out.raw
code_of platter dd -f raw if=in.raw of=in.raw
left_here
