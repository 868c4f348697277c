# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow of version 1: what qemu-img says of it. Which format its backing file has it cannot say, so
# whoever opens it must; a chain may need several words.
same create -f qcow a.qcow 10M
same info a.qcow
same info --output=json a.qcow
qemu-img create -q -f raw base.raw 5M
same create -f qcow -b base.raw -F raw over.qcow 8M
same info over.qcow
same info --output=json over.qcow
same map --output=json a.qcow
printf secret >key
qemu-img create -q -f qcow --object secret,id=s,file=key -o encrypt.format=aes,encrypt.key-secret=s e.qcow 1M
same info e.qcow
same info --output=json e.qcow

code_of platter info --backing-chain over.qcow
code_of platter digest --probe-backing over.qcow
platter info --backing-chain --backing-format raw over.qcow | grep '^image'
platter create -q -u -f qcow -b over.qcow -F qcow third.qcow 8M
code_of platter digest --backing-format qcow third.qcow
platter info --backing-chain --backing-format qcow,raw third.qcow | grep '^image'

# Encrypted it needs its key, and is said to be poorly so.
code_of platter digest e.qcow
platter digest --key-file key e.qcow
code_of platter create -f qcow -o encrypt.key-secret=s bad.qcow 1M
code_of platter create -f qcow -o encrypt.format=aes bad.qcow 1M
code_of platter create -f qcow bad.qcow 0
code_of platter create -f qcow bad.qcow 200T
code_of platter convert -c --new-key-file key -f raw -O qcow -o encrypt.format=aes base.raw bad.qcow
platter create -q -f qcow huge.qcow 100T
platter info huge.qcow | grep virtual
platter resize -q huge.qcow 120T
code_of platter resize -q --preallocation=full huge.qcow 121T
code_of platter resize -q huge.qcow 1P
platter measure -O qcow --size 10M
truncate -s 100700 odd.raw
platter measure -f raw -O qcow odd.raw
left_here | count bad
