# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A key in several slots goes from all of them; one that is overwritten stays until the new one is there; and a slot
# that is too much work keeps no other key from being tried.
for k in one two three; do printf %s $k >$k.key; done
: >empty.key
states() { platter key list a.luks | awk 'NR > 1 { printf "%s ", $2 } END { print "" }'; }
key() { platter key "$@" --iter-time 1 a.luks; }
opens() { platter bench -q -c 1 --key-file "$1.key" a.luks; }
platter create -q -f luks -o iter-time=1 --new-key-file one.key a.luks 1M
key add --key-file one.key --new-key-file one.key --slot 5
key add --key-file one.key --new-key-file three.key --slot 7
key change --key-file one.key --new-key-file two.key
states
code_of opens one
opens two && opens three
key change --key-file two.key --new-key-file two.key
states
opens two
key add --force --slot 0 --key-file two.key --new-key-file one.key --output=json
states
key change --force --slot 7 --key-file one.key --new-key-file two.key --output=json
states
code_of opens one
opens two
# New keys that let everybody in, or nobody.
code_of key add --key-file two.key --new-key-file empty.key
code_of platter create -q -f luks --new-key-file empty.key b.luks 1M
code_of platter create -q -f luks -o iter-time=3600000 --new-key-file one.key b.luks 1M 2>&1 | sed 's/takes [0-9]*/takes N/'
states
# Slot 0 says that it takes four billion iterations.
key add --key-file two.key --new-key-file one.key
put $((208 + 48 * 7 + 4)) '\xff\xff\xff\xff' a.luks
code_of opens two
opens one
platter bench -q -c 1 --key-file two.key --key-file one.key a.luks
code_of key change --key-file one.key --new-key-file two.key
left_here
