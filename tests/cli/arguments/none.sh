# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Without a command, or with one that is not there.
code_of platter
code_of platter nope
code_of platter --nope
code_of platter help nope
