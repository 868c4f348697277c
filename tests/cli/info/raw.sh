# SPDX-License-Identifier: MIT
# shellcheck shell=bash
truncate -s 1M a.raw
same info -f raw a.raw
same info -f raw --output=json a.raw
same info -U --output=human a.raw
same info --output=json --backing-chain a.raw
platter info a.raw
: >empty.raw
same info empty.raw
