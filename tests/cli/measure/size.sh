# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
for args in '--size 1G' '--size 1G -O raw' '--size 1G -O qcow2' '--size 0 -O qcow2' '--size 1 -O qcow2' '--size 10T -O qcow2' \
    '--size 1G -O qcow2 -o cluster_size=4k' '--size 1G -O qcow2 -o refcount_bits=64' '--size 1G -O qcow2 -o extended_l2=on' \
    '--size 1G -O qcow2 -o compat=0.10' '--size 1G -O qcow2 -o preallocation=full'; do
    same measure $args
    same measure --output=json $args
done
platter measure --size 1G -O qcow2
