# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter convert -O qcow2 -o help | head -3
platter convert -O qcow2 -o help a.raw b.qcow2 | head -2
platter convert -o help
