# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A result that cannot be written is an error.
truncate -s 1M a.raw
code_of platter info -f raw a.raw >/dev/full
code_of platter map -f raw --output=json a.raw >/dev/full
code_of platter formats >/dev/full
code_of platter --help >/dev/full
