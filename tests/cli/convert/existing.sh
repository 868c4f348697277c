# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
platter create -q -f qcow2 b.qcow2 1M
platter convert -n -f raw -O qcow2 a.raw b.qcow2
qemu-img compare a.raw b.qcow2
qemu-img check b.qcow2 | head -1
data 1M c.raw 2
platter convert -n -f raw -O raw a.raw c.raw
cmp a.raw c.raw
truncate -s 0 c.raw
truncate -s 1M c.raw
platter convert -n --target-is-zero -f raw -O raw a.raw c.raw
cmp a.raw c.raw
truncate -s 1000k c.raw
code_of platter convert -n -f raw -O raw a.raw c.raw
code_of platter convert -n -f raw -O raw a.raw nope.raw
# Without -O it is raw, but not over an image.
data 1000K b.raw 3
platter convert -n -f raw b.raw c.raw
cmp b.raw c.raw
platter convert -f raw -O vmdk a.raw d.vmdk
for image in b.qcow2 d.vmdk; do
    sha256sum $image >before
    code_of platter convert -n -f raw a.raw $image
    sha256sum -c --quiet before
done
rm before
platter convert -n -f raw -O raw b.raw d.vmdk
cmp -n 1000k b.raw d.vmdk
left_here
