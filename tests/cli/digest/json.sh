# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 64K a.raw
platter digest --output=json -f raw a.raw a.raw
platter digest --output=json --algorithm=sha256 -f raw a.raw
