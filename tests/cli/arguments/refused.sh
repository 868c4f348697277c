# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What qemu-img has and we do not is refused with the reason.
truncate -s 1M a.raw
platter info --image-opts driver=raw,file.filename=a.raw | head -n 1
code_of platter info --image-opts driver=raw,file.filename=a.raw,cache.direct=on
code_of platter info --object secret,id=s a.raw
code_of platter convert --target-image-opts a.raw b.raw
code_of platter info json:{}
left_here
