# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An archive that does not come to its end leaves the old one, and nothing else.
data 8M a.raw
echo old >out.vma
echo old >out.vma.platter.digest

echo '* a limit'
(
    ulimit -f 2048
    code_of platter archive create -q out.vma -d a=a.raw -f raw
) 2>&1 | sed 's/[0-9]* bytes at offset [0-9]*/N/'
echo '* a signal'
platter archive create -q out.vma.zst --digest -r 1M -d a=a.raw -f raw &
until compgen -G '.out.vma.zst.platter-partial-*' >/dev/null; do sleep 0.01; done
kill -TERM $!
code_of wait $!
platter archive create -q out.vma --digest -r 1M -d a=a.raw -f raw &
until compgen -G '.out.vma.platter-partial-*' >/dev/null; do sleep 0.01; done
kill -TERM $!
code_of wait $!
echo '* a reader that goes'
mkfifo fifo
head -c 1000 fifo >/dev/null &
code_of platter archive create -q fifo -d a=a.raw -f raw 2>&1 | sed 's/offset [0-9]*/N/'
rm fifo
cat out.vma out.vma.platter.digest
left_here

echo '* a vast disk of nothing'
platter create -q -f qcow2 -o cluster_size=2M vast.qcow2 200T
platter archive create -q - -d a=vast.qcow2 >/dev/null 2>&1 & # where the signal finds it at work it says so
sleep 0.3
kill -TERM $!
code_of wait $!
