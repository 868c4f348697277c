# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A raw disk that is no multiple of 512 has the size it has.
truncate -s 1234567 a.raw
platter info -f raw a.raw | grep size
