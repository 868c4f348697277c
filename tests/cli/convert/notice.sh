# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A source of no known format is taken as raw, and that is said.
data 64K a.raw
platter convert a.raw b.raw
platter convert -f raw a.raw b.raw
platter convert -q a.raw b.raw
cmp a.raw b.raw
