# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter __completion >completion
bash -n completion
# shellcheck disable=SC1091
. ./completion
try() {
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    compopt() { :; }
    _platter
    echo "$*: ${COMPREPLY[*]}"
}
try platter conv
try platter convert -O q
try platter convert --sal
try platter info --output j
try platter info --output = j
try platter digest --algorithm ''
touch some.qcow2
try platter info some
echo "--- verbs of two words"
try platter v
try platter vma ex
try platter vma extract -
try platter archive ''
try platter vma extract -r so
try platter extract -O q
