# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A volume of LUKS, without its key: its header makes sense or not, and what a change of keys left is seen.
printf one >one.key
printf two >two.key
platter create -q -f luks -o iter-time=1 --new-key-file one.key a.luks 1M
platter check a.luks
platter check --output=json a.luks
code_of platter check --data a.luks
platter key add --iter-time 1 --key-file one.key --new-key-file two.key a.luks
platter check -q a.luks
# The slot is off, its material and salt are there.
cp a.luks b.luks
put $((208 + 48)) '\x00\x00\xde\xad' b.luks
platter check b.luks
platter check -r leaks b.luks
platter check b.luks
put $((208 + 48)) '\x00\xac\x71\xf3\x00\x00\x03\xe8' b.luks
dd if=a.luks of=b.luks bs=1 skip=$((208 + 56)) seek=$((208 + 56)) count=40 conv=notrunc status=none
code_of platter bench -q -c 1 --key-file two.key b.luks
platter bench -q -c 1 --key-file one.key b.luks
# Bytes behind the last sector; too much work.
printf more >>b.luks
put $((208 + 4)) '\xff\xff\xff\xff' b.luks
platter check b.luks
# A state that there is not, a cut, no slot in use, and a version that nobody knows here.
put $((208 + 48 * 3)) '\x01' b.luks
code_of platter check b.luks
truncate -s 1M a.luks
code_of platter check a.luks
truncate -s 500 a.luks
code_of platter check -f luks a.luks
platter create -q -f luks -o iter-time=1 --new-key-file one.key a.luks 1M
platter key remove -q --force --slot 0 a.luks
code_of platter check a.luks
put 7 '\x02' a.luks
code_of platter check a.luks
