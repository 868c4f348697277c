# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nobody reads: an error, not a death by signal.
truncate -s 64M a.raw
data 1M b.raw
(code_of platter convert b.raw b.raw b.raw b.raw - 2>err >&3 || true) 3> >(exec true) | sed 's/^/piped: /' || true
sleep 0.1
true
