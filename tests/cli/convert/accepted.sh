# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
# Options of qemu-img that need nothing from us are taken.
data 64K a.raw
for args in '-t none' '-t writeback' '-t unsafe' '-t directsync' '-T none' '-C' '-W' '-m 1' '-m 16' '-W -m 4' '-S 0' \
    '-S 64k' '-r 1G' '-U' '-p -q' '--memory 32M'; do
    platter convert -f raw -O raw $args a.raw b.raw
    cmp a.raw b.raw
    rm b.raw
done
