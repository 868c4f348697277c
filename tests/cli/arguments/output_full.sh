# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A result that cannot be written is an error.
truncate -s 1M a.raw
full() {
    local code=0
    platter "$@" >/dev/full || code=$?
    echo "exit code $code: $*"
}
full info -f raw a.raw
full map -f raw --output=json a.raw
full digest -f raw a.raw
full create a.raw 1M
full formats
full --help
full --version
full help info
