# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Every verb says how many images it expects.
for verb in info create convert map compare digest measure; do
    code_of platter $verb
done
code_of platter info a b
code_of platter create a 1M c
code_of platter convert a
code_of platter map a b
code_of platter compare a
code_of platter compare a b c
code_of platter measure a b
code_of platter formats a
