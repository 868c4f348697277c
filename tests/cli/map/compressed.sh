# SPDX-License-Identifier: MIT
# shellcheck shell=bash
repeated 1M y >a.raw
qemu-img convert -f raw -c -O qcow2 a.raw a.qcow2
same map --output=json a.qcow2
same map a.qcow2
code_of platter map a.qcow2
