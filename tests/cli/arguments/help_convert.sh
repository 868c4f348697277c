# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter convert --help
