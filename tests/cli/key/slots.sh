# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Keys of a qcow2 and of a volume: added, changed, removed, by number and by what they are.
for k in one two three; do printf %s $k >$k.key; done
states() { platter key list "$1" | awk 'NR > 1 { printf "%s ", $2 } END { print "" }'; }
for format in qcow2 luks; do
    prefix=$([ $format = luks ] || echo encrypt.)
    options=$([ $format = luks ] || echo encrypt.format=luks,)${prefix}iter-time=1
    platter create -q -f $format -o "$options" --new-key-file one.key a.$format 1M
    states a.$format
    platter key add --iter-time 1 --key-file one.key --new-key-file two.key a.$format
    platter key add --iter-time 1 --key-file two.key --new-key-file three.key --slot 6 a.$format
    code_of platter key add --iter-time 1 --key-file one.key --new-key-file two.key --slot 6 a.$format
    states a.$format
    platter key change --iter-time 1 --key-file two.key --new-key-file three.key a.$format
    code_of platter digest --key-file two.key a.$format
    platter key remove --key-file one.key --old-key-file three.key a.$format
    states a.$format
    code_of platter key remove --key-file one.key --slot 0 a.$format
    code_of platter key remove --key-file one.key --slot 3 a.$format
    code_of platter key remove --key-file one.key --old-key-file one.key a.$format
    platter compare --key-file one.key a.$format a.$format
    platter key remove --force --slot 0 a.$format
    code_of platter digest --key-file one.key a.$format
    platter key list --output=json a.$format | count true
done
