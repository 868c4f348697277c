# SPDX-License-Identifier: MIT
# shellcheck shell=bash
for subformat in monolithicSparse streamOptimized monolithicFlat; do
    qemu-img create -q -f vmdk -o subformat=$subformat $subformat.vmdk 10M
    same info $subformat.vmdk
    same info --output=json $subformat.vmdk
done
