# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image over a file outside of its folder is made as asked, and the user told that it does not open
# as it is.
mkdir vms
platter create -q -f qcow2 base.qcow2 1M
platter create -q -f vmdk base.vmdk 1M
platter create -q -f vmdk vms/near.vmdk 1M
for format in qcow2 vmdk; do
    echo "== $format"
    platter create -f $format -b ../base.$format -F $format vms/top.$format
    code_of platter map vms/top.$format
    platter create --allow . -f $format -b ../base.$format -F $format vms/top.$format
    platter create -q -f $format -b ../base.$format -F $format vms/top.$format
    platter create -f $format -b base.$format -F $format top.$format
done

echo "== rebase"
platter create -q -f vmdk -b near.vmdk -F vmdk vms/top.vmdk
platter rebase -b ../base.vmdk -F vmdk vms/top.vmdk
platter rebase --allow . -b near.vmdk -F vmdk vms/top.vmdk
platter rebase -b "" vms/top.vmdk
