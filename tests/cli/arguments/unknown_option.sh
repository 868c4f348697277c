# SPDX-License-Identifier: MIT
# shellcheck shell=bash
for verb in info create convert map compare digest measure formats; do
    code_of platter $verb -Z
    code_of platter $verb --nope
done
