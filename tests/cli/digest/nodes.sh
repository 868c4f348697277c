# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 40000000 a.raw
platter digest --nodes -f raw a.raw
platter digest --nodes --output=json -f raw a.raw
code_of platter digest --nodes --algorithm=sha256 a.raw
