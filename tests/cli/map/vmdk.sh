# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
qemu-img convert -f raw -O vmdk a.raw sparse.vmdk
qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat a.raw flat.vmdk
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized a.raw stream.vmdk
same map --output=json sparse.vmdk
same map --output=json stream.vmdk
same map sparse.vmdk
same map flat.vmdk
same map --output=json flat.vmdk
