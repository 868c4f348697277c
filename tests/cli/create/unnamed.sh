# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A qcow does not name the format of its backing file: what is made over one, or written into one,
# needs to be told.
data 1M base.raw
platter create -q -f qcow -b base.raw -F raw middle.qcow
code_of platter create -f qcow2 -b middle.qcow -F qcow top.qcow2
platter create -q -f qcow2 -b middle.qcow -F qcow --backing-format raw top.qcow2
platter digest --backing-format raw top.qcow2
code_of platter create -q -f qcow -b middle.qcow -F qcow --probe-backing top.qcow 1M
platter create -q -f qcow -b middle.qcow -F qcow --backing-format raw top.qcow
platter digest --backing-format qcow,raw top.qcow

cp base.raw new.raw
put 70000 x new.raw
code_of platter convert -f raw -O qcow2 -B middle.qcow -F qcow new.raw new.qcow2
platter convert -f raw -O qcow2 -B middle.qcow -F qcow --backing-format raw new.raw new.qcow2
platter compare -f raw -F qcow2 --backing-format raw new.raw new.qcow2
platter map new.qcow2 --backing-format raw --output=json | count '"depth": 0'

# Into one that is there.
code_of platter convert -n -f raw -O qcow new.raw top.qcow
platter convert -n -f raw -O qcow --backing-format qcow,raw new.raw top.qcow
platter compare -f raw -F qcow --backing-format qcow,raw new.raw top.qcow

# By its content where that tells.
platter create -q -f qcow2 base.qcow2 1M
platter create -q -f qcow -b base.qcow2 -F qcow2 second.qcow
code_of platter create -f qcow2 -b second.qcow -F qcow third.qcow2
platter create -q -f qcow2 -b second.qcow -F qcow --probe-backing third.qcow2
platter convert -f raw -O qcow2 -B second.qcow -F qcow --probe-backing new.raw fourth.qcow2
platter compare -f raw -F qcow2 --probe-backing new.raw fourth.qcow2
left_here
