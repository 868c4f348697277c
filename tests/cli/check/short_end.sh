# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The last grain may end where the disk does: nothing is wrong with that, and nothing is mended.
qemu-img create -q -f vmdk a.vmdk 1100K
qemu-io -f vmdk -c 'write -P 7 1088k 12k' a.vmdk >/dev/null
end=$(platter map --output=json a.vmdk | sed -n 's/.*"start": 1114112.*"offset": \([0-9]*\).*/\1/p')
truncate -s $((end + 12288)) a.vmdk
sha256sum a.vmdk >before
platter check -q a.vmdk
platter check -q -r all a.vmdk
sha256sum -c --quiet before
truncate -s $((end + 12287)) a.vmdk
code_of platter check -q a.vmdk
