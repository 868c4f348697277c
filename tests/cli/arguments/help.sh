# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter --help >a
platter -h >b
platter help >c
cmp a b
cmp a c
cat a
for verb in info create convert map compare digest measure formats; do
    platter $verb --help >a
    platter $verb -h >b
    platter help $verb >c
    cmp a b
    cmp a c
    head -2 a
    grep -c -x 'examples:' a
done
