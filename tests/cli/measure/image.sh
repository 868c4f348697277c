# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
data 1M a.raw
truncate -s 40M a.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
qemu-img convert -f raw -O qcow2 -o compat=0.10 a.raw v2.qcow2
for image in '-f raw a.raw' a.qcow2 v2.qcow2; do
    for args in '' '-O raw' '-O qcow2' '-O qcow2 -o cluster_size=2M' '-O qcow2 -o compat=0.10' '-O qcow2 -o size=50M'; do
        same measure $args $image
        same measure --output=json $args $image
    done
done
qemu-img snapshot -c s1 a.qcow2
same measure -l s1 -O qcow2 a.qcow2
