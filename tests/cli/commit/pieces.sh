# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A parent that is split into files gets another one, where the child is longer.
for subformat in twoGbMaxExtentFlat twoGbMaxExtentSparse; do
    rm -f ./*.vmdk
    platter create -q -f vmdk -o subformat=$subformat base.vmdk 1G
    platter create -q -f vmdk -b base.vmdk -F vmdk top.vmdk 3G
    qemu-io -t unsafe -f vmdk -c 'write -P 5 2500M 1M' -c 'write -P 6 1000M 2M' top.vmdk >/dev/null
    platter commit top.vmdk
    left_here
    qemu-io -r -f vmdk -c 'read -P 5 2500M 1M' -c 'read -P 6 1000M 2M' base.vmdk | grep -c ^read
    platter compare top.vmdk base.vmdk
    platter check -q base.vmdk
done
