# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What cannot be done with a compressed image.
data 100K a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
gzip -k a.qcow2
cp a.qcow2.gz before
echo "--- it is not written to"
code_of platter resize a.qcow2.gz 10M
code_of platter bitmap --add a.qcow2.gz b
code_of platter check -r all a.qcow2.gz
code_of platter rebase -u -b '' a.qcow2.gz
echo "--- nor over"
code_of platter convert -O qcow2 a.qcow2.gz a.qcow2.gz
ln a.qcow2.gz other
code_of platter convert -O raw a.qcow2.gz other
cmp a.qcow2.gz before
echo "--- damage"
head -c 50000 a.qcow2.gz >cut.gz
code_of platter digest cut.gz
cp a.qcow2.gz flipped.gz
put 60000 '\x55\xaa\x55' flipped.gz
code_of platter convert -O raw flipped.gz out.raw
printf '\x1f\x8b\x08a raw disk' >odd.raw
truncate -s 64K odd.raw
code_of platter info odd.raw
platter info -f raw odd.raw | grep -v '^disk size'
echo "--- a raw disk inside is not guessed where that is not asked for"
platter convert -f raw -O qcow2 a.raw over.qcow2
gzip -k a.raw
platter rebase -u -b a.raw.gz -F raw over.qcow2
platter info --backing-chain over.qcow2 | grep '^image\|^file format\|^compressed'
