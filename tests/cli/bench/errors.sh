# SPDX-License-Identifier: MIT
# shellcheck shell=bash
truncate -s 64k a.raw
for how in "-c x" "-c -1" "-d 0" "-d 2000" "-s 0" "-s 3G" "-o x" "--pattern=256" "--flush-interval=100" \
    "-w --flush-interval=3" "-i none" "-t none9" "-o 64k" "-o 1G" "-s 65k" "b.raw"; do
    # shellcheck disable=SC2086
    code_of platter bench -f raw $how a.raw
done
code_of platter bench
code_of platter bench -f raw nope.raw
code_of platter bench -f qcow2 a.raw
