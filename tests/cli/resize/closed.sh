# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The mark of a file that was not closed is as it was before: of whoever left it, and not ours.
mark() { od -An -t u1 -j 72 -N 1 "$1"; }
for before in 0 1; do
    for size in 8M 80M; do
        platter create -q -f vmdk a.vmdk 4M
        put 72 "\\x0$before" a.vmdk
        platter resize -q a.vmdk $size
        mark a.vmdk
        qemu-io -f vmdk -c 'write 0 64k' a.vmdk >/dev/null
        platter resize -q a.vmdk 90M
        mark a.vmdk
    done
done
