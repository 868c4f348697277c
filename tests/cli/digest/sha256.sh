# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 9M a.raw
platter digest -f raw --algorithm=sha256 a.raw | sha256sum -c
qemu-img convert -f raw -O qcow2 -c a.raw a.qcow2
[ "$(platter digest --algorithm=sha256 a.qcow2 | cut -c1-64)" = "$(sha256sum <a.raw | cut -c1-64)" ]
