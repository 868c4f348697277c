# SPDX-License-Identifier: MIT
# shellcheck shell=bash
code_of platter info -f
code_of platter convert --memory
code_of platter map --start-offset
