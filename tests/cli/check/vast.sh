# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A disk of 64 TiB, with tables for 1 TiB of data: 256 MiB are enough, beside what it takes to look at
# an empty one.
platter create -q -f qcow2 -o preallocation=metadata a.qcow2 1T
platter resize -q a.qcow2 64T
platter create -q -f qcow2 b.qcow2 1M
python3 - <<'END'
import os
import subprocess
os.environ["ASAN_OPTIONS"] = "quarantine_size_mb=1:detect_leaks=0"


def peak(*argv):
    """In MiB."""
    program = subprocess.Popen(["platter", *argv])
    used = os.wait4(program.pid, 0)[2]
    return used.ru_maxrss >> 10


least = peak("check", "-q", "b.qcow2")
most = peak("check", "-q", "a.qcow2")
print(f"{most - least} MiB" if most > least + 256 else "enough", flush=True)
END
