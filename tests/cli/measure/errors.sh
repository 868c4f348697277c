# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
truncate -s 1M a.raw
for args in '' '--size 1G a.raw' '--size 1G -f qcow2' '--size nope' '--size -1' '-O nope --size 1G' 'a.raw a.raw' 'nope.raw' \
    '-O qcow2 -o nope=1 --size 1G'; do
    same measure $args
    code_of platter measure $args
done
