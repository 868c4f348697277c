# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter create -q a.raw 3M
platter resize -f raw a.raw 4M
platter resize -q -f raw a.raw 5M
code_of platter resize -f raw a.raw 1M
code_of platter resize -f raw a.raw -- -1M
code_of platter resize -f raw a.raw 1.5Q
code_of platter resize -f raw --shrink a.raw -5M
code_of platter resize -f raw --preallocation=metadata a.raw 9M
code_of platter resize -f raw --preallocation=some a.raw 9M
platter resize -f raw --shrink a.raw -4M
platter resize -f raw a.raw 1048577
platter resize a.raw +1
stat -c '%n %s' a.raw
platter create -q -f qcow2 a.qcow2 1M
chmod a-w a.raw
[ -w a.raw ] || code_of platter resize -f raw a.raw 9M
