# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 1M a.raw
truncate -s 4M a.raw
same map -f raw a.raw
same map -f raw --output=json a.raw
: >empty.raw
same map -f raw empty.raw
same map -f raw --output=json empty.raw
platter map a.raw | head -1
