# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Nobody reads: an error, not a death by signal.
data 4M a.raw
unread() {
    python3 - "$@" <<'END'
import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
code = subprocess.call(["platter", *sys.argv[1:]], stdout=writer)
print("exit code", code, flush=True)
END
}
unread formats
unread convert -f raw a.raw -
