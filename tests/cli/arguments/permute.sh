# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Options may follow operands, and be joined to their argument.
truncate -s 1M a.raw
platter info a.raw -f raw
platter info -fraw --outp=human a.raw
platter info -f raw -- a.raw | head -1
