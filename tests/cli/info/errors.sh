# SPDX-License-Identifier: MIT
# shellcheck shell=bash
truncate -s 1M a.raw
code_of platter info nope.qcow2
code_of platter info -f qcow2 a.raw
code_of platter info -f nope a.raw
code_of platter info .
code_of platter info ''
same info nope.qcow2
same info -f qcow2 a.raw
