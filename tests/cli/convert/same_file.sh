# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Onto itself.
data 1M a.raw
cp a.raw old.raw
code_of platter convert -n -f raw -O raw a.raw a.raw
cmp a.raw old.raw
