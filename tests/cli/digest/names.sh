# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The spelling of sha256sum for names that break lines.
data 64K $'a\nb.raw'
data 64K 'a\b.raw'
platter digest -f raw --algorithm=sha256 $'a\nb.raw' 'a\b.raw' >ours
sha256sum $'a\nb.raw' 'a\b.raw' >theirs
cmp ours theirs
