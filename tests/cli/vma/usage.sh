# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# By a link called vma: usage on standard output and code 1, as the program of that name has it.
ln -s "$(command -v platter)" vma
truncate -s 64K a.raw
archive x.vma drive-scsi0=a.raw
export PATH="$PWD:$PATH"
for args in '' -h --help help nope 'list' 'list -h' 'list a b' 'extract x.vma' 'extract -r' 'config -c' 'list -z x.vma'; do
    # shellcheck disable=SC2086
    (code_of vma $args 2>&1 >usage) | sed "s/^/[$args] /"
    head -1 usage
done
grep extract usage
echo "--- the work"
vma list x.vma | head -1
vma verify x.vma
code_of vma list nope
echo "--- as a verb of platter"
code_of platter vma >usage
head -1 usage
code_of platter vma -h >usage
head -1 usage
code_of platter vma list
code_of platter vma nope
platter vma extract -h >usage
head -2 usage
