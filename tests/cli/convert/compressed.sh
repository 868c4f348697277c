# SPDX-License-Identifier: MIT
# shellcheck shell=bash
repeated 4M 'the same line again and again' >a.raw
for o in compression_type=zlib compression_type=zstd cluster_size=4k cluster_size=2M; do
    platter convert -f raw -c -O qcow2 -o $o a.raw a.qcow2
    qemu-img convert -f raw -c -O qcow2 -o $o a.raw b.qcow2
    qemu-img compare -q a.raw a.qcow2
    qemu-img check a.qcow2 | head -1
    # Not larger than what qemu-img makes, up to the tables.
    [ "$(stat -c %s a.qcow2)" -le $(($(stat -c %s b.qcow2) + 65536)) ] && echo "$o: small"
done
