# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 4M a.raw
platter convert -r 1M -f raw -O raw a.raw b.raw 2>err &
sleep 1
kill -USR1 $!
wait $!
cmp a.raw b.raw
grep -c '^    ([0-9.]*/100%)$' err
