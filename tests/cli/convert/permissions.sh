# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A target in a folder that cannot be written, a source that cannot be read.
data 64K a.raw
mkdir locked
code_of platter convert -f raw -O raw a.raw a.raw/b
code_of platter convert -f raw -O raw . b.raw
code_of platter convert -f raw -O raw a.raw nope/b.raw
left_here
