# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
qemu-img convert -f raw -O vmdk a.raw sparse.vmdk
qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat a.raw flat.vmdk
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized a.raw stream.vmdk
for kind in sparse flat stream; do
    same map --output=json $kind.vmdk
done
same map sparse.vmdk
same map flat.vmdk
