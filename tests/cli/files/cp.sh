# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Where things go, and what is left alone.
mkdir -p tree/etc/more 'tree/with:'
echo fstab >tree/etc/fstab
echo more >tree/etc/more/file
echo colon >'tree/with:/file'
ln -s etc/fstab tree/link
mkfifo tree/fifo
truncate -s 8M a.raw
mke2fs -q -t ext4 -d tree a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
rm -r tree

echo "--- one file"
platter cp a.qcow2:/etc/fstab -
platter cp a.qcow2:/link name
mkdir folder
platter cp a.qcow2:/etc/fstab a.qcow2:/link folder
platter cp a.qcow2:/etc/more/file folder/other
platter cp a.qcow2:/with:/file colon
platter cp --path /with:/file --path /etc/fstab a.qcow2 folder
cp a.qcow2 a:b.qcow2
platter cp a:b.qcow2:/etc/fstab again
cat name colon again
for file in folder/*; do echo "$file $(cat "$file")"; done
rm -r folder name colon again

echo "--- folders"
code_of platter cp a.qcow2:/etc there
platter cp -r a.qcow2:/etc there
mkdir in
platter cp -r a.qcow2:/etc in
platter cp -r a.qcow2:/etc/ in/again/
code_of platter cp -r a.qcow2:/ all
code_of platter cp -r a.qcow2:/ in
(umask 077; platter cp a.qcow2:/etc/fstab private)
find there in all private -printf '%y %m %p %l\n' | sort
rm -rf there all private

echo "--- what is there already"
echo old >file
ln -s file link
platter cp a.qcow2:/etc/more/file link
cat file
readlink link
ln -s nowhere dangling
code_of platter cp a.qcow2:/etc/fstab dangling
mkfifo pipe
code_of platter cp a.qcow2:/etc/fstab pipe
code_of platter cp a.qcow2:/etc/fstab a.qcow2
mkdir -p trap/etc elsewhere
rm -r in
ln -s "$PWD/elsewhere" trap/etc/more
ln -s "$PWD/file" trap/etc/fstab
code_of platter cp -r a.qcow2:/etc trap
cat file trap/etc/fstab
left_here | grep -v '^tree'

echo "--- none of these"
code_of platter cp a.qcow2:/etc/fstab
code_of platter cp a.qcow2 .
code_of platter cp a.qcow2:/etc/fstab a.qcow2:/link -
code_of platter cp a.qcow2:/etc/fstab a.qcow2:/link file
code_of platter cp a.qcow2:/etc/nothing a.qcow2:/etc/fstab elsewhere
code_of platter cp a.qcow2:/etc/fstab nowhere/file
code_of platter cp a.qcow2:/etc -
code_of platter cp a.qcow2:/fifo elsewhere
code_of platter cp nothing.qcow2:/etc/fstab .
code_of platter cp --path etc a.qcow2 .
code_of platter cp --path /etc a.qcow2:/etc .
ls elsewhere
