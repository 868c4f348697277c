#!/bin/sh
# SPDX-License-Identifier: MIT
# The shared library shows what the public headers declare, and nothing else.
# usage: exports.sh LIBRARY HEADER-FOLDER
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$folder/shown"
grep -o '\bplatter_[a-z0-9_]*(const\|\bplatter_[a-z0-9_]*(' -h -r "$2" | sed 's/(.*//' | sort -u >"$folder/named"
# Calls that comments speak of are declared as well, or the comment is wrong: both lists must agree.
diff -u "$folder/named" "$folder/shown"
test "$(wc -l <"$folder/shown")" -gt 10
