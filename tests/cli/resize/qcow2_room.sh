# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk that cannot grow for want of room gives back what it took, and is what it was.
for options in cluster_size=64k cluster_size=16k,extended_l2=on cluster_size=4k,data_file=d.bin \
        cluster_size=64k,data_file=d.bin,data_file_raw=on; do
    echo "$options"
    rm -f a.qcow2 d.bin
    platter create -q -f qcow2 -o $options a.qcow2 1M
    qemu-io -f qcow2 -c 'write -P 7 0 1M' a.qcow2 >/dev/null
    before=$(stat -c %s -- *)
    for how in metadata falloc full; do
        [[ $options != *data_file* || $how != metadata ]] || how=full
        (
            ulimit -f 20480
            code_of platter resize --preallocation=$how a.qcow2 100M 2>&1 | sed 's/: .*//'
        )
        qemu-img check -q a.qcow2
        after=$(stat -c %s -- *)
        python3 -c 'import sys
before, after = ([int(n) for n in text.split()] for text in sys.argv[1:])
print(all(b <= a + (256 << 10) for a, b in zip(before, after)))' "$before" "$after"
        qemu-io -f qcow2 -c 'read -q -P 7 0 1M' a.qcow2
    done
    platter resize -q a.qcow2 2M
    qemu-io -f qcow2 -c 'read -q -P 7 0 1M' -c 'read -q -P 0 1M 1M' a.qcow2
done
