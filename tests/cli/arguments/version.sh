# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter --version | sed 's/[0-9][0-9.]*/N/'
platter -V | sed 's/[0-9][0-9.]*/N/'
