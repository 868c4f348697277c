# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image that grew has tables behind its grains: those stay when it is emptied, and the space of
# the grains in between goes.
platter create -q -f vmdk base.vmdk 40M
platter create -q -f vmdk -b base.vmdk -F vmdk top.vmdk 33M
qemu-io -f vmdk -c 'write -P 2 0 1M' top.vmdk >/dev/null
platter resize -q top.vmdk 5G
qemu-io -f vmdk -c 'write -P 3 4G 1M' -c 'write -P 4 1M 64k' top.vmdk >/dev/null
platter commit top.vmdk
platter map top.vmdk | count top.vmdk
platter check -q top.vmdk
[ "$(stat -c %b top.vmdk)" -lt 1000 ]
qemu-io -f vmdk -c 'read -P 2 0 1M' -c 'read -P 3 4G 1M' -c 'read -P 4 1M 64k' -c 'read -P 0 40M 1M' \
    -c 'write -P 5 3G 64k' -c 'read -P 5 3G 64k' -c 'read -P 3 4G 1M' top.vmdk | grep -c -E '^(read|wrote)'
