# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk is not written to a terminal.
truncate -s 1M a.raw
script -qec 'platter convert -f raw -O raw a.raw -' typescript </dev/null | tr -d '\r'
rm typescript
