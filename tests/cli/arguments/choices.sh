# SPDX-License-Identifier: MIT
# shellcheck shell=bash
truncate -s 1M a.raw
code_of platter info --output=xml a.raw
code_of platter info --output= a.raw
code_of platter digest --algorithm=md5 a.raw
code_of platter convert --progress=dots a.raw b.raw
code_of platter convert -m 0 a.raw b.raw
code_of platter convert -m 65 a.raw b.raw
code_of platter convert -m two a.raw b.raw
