# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What qemu-img says, and what becomes of the file.
same resize
same resize a.raw
same resize nope.raw 1M
platter create -q a.raw 1M
same resize -f raw a.raw 2M
same resize -f raw a.raw +1M
same resize -q -f raw a.raw +0
same resize -f raw a.raw -1M
same resize -f raw a.raw 1000
same resize -f raw --shrink a.raw -10M
same resize -f raw --shrink a.raw 0
same resize -f raw --shrink a.raw -1M
same resize -f raw a.raw foo
same resize -f raw a.raw +8E
same resize -f raw a.raw 16E
same resize -f raw a.raw 1M 2M
same resize -f raw --preallocation=full a.raw +1M
same resize -f raw --preallocation=falloc a.raw +1M
same resize -f raw --preallocation=metadata a.raw +1M
same resize -f raw --preallocation=full --shrink a.raw 2M
same resize -f raw --preallocation=bogus a.raw 9M
stat -c '%n %s' a.raw
qemu-img create -q -f vmdk a.vmdk 1M
same resize --shrink a.vmdk 512k
same resize a.vmdk 512k
same resize --image-opts driver=raw,file.filename=a.raw 2M
