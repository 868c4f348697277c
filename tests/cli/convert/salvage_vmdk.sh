# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A stream whose end is missing: an error that tells what to do, and everything that is in the file.
data 1M a.raw
platter convert -f raw -O vmdk -o subformat=streamOptimized a.raw a.vmdk
size=$(stat -c %s a.vmdk)

echo 'without its footer: the directory is found'
head -c $((size - 1536)) a.vmdk >cut.vmdk
code_of platter convert -O raw cut.vmdk b.raw
code_of platter info cut.vmdk
platter convert --salvage -O raw cut.vmdk b.raw
cmp a.raw b.raw
platter compare --salvage -F raw cut.vmdk a.raw
platter info --salvage cut.vmdk | grep '^virtual size'
platter map --salvage --output=json cut.vmdk | grep -c start

echo 'without its directory: nobody knows what else there was'
head -c $((size - 3 * 1024)) a.vmdk >cut.vmdk
code_of platter convert --salvage -O raw cut.vmdk b.raw
cmp a.raw b.raw

echo 'half of it'
head -c 500k a.vmdk >cut.vmdk
code_of platter convert --salvage -O raw cut.vmdk b.raw
cmp -n 393216 a.raw b.raw
left_here
