#!/bin/sh
# SPDX-License-Identifier: MIT
# The public header stands alone: as strict C11 and as C++17.
# usage: header.sh INCLUDE-FOLDER C-COMPILER...
set -eu
include=$1
shift
out=$(mktemp)
trap 'rm -f "$out"' EXIT
echo '#include <platter/platter.h>' |
    "$@" -std=c11 -pedantic-errors -Wall -Wextra -Werror -I"$include" -x c -c -o "$out" -
echo '#include <platter/platter.h>' |
    ${CXX:-g++} -std=c++17 -pedantic-errors -Wall -Wextra -Werror -I"$include" -x c++ -c -o "$out" -
