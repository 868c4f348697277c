# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
platter compare -p -f raw -F raw a.raw a.raw | tr '\r' '\n' | tail -2
