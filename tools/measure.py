# SPDX-License-Identifier: MIT
"""What demo and bench share: running a command with a stopwatch, and printing figures."""
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One run of a command."""

    seconds: float
    peak: int  # most bytes of memory in use
    output: str


def run(command, accept=(0,)):
    """Runs a command; an exit code that is not in `accept` ends the program with what it said."""
    # GNU time is between us and the command because a child's peak starts at that of its parent.
    with tempfile.NamedTemporaryFile("r") as peak:
        started = time.perf_counter()
        done = subprocess.run(["time", "--quiet", "-o", peak.name, "-f", "%M", *map(str, command)],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        seconds = time.perf_counter() - started
        memory = peak.read().split()
    if done.returncode not in accept:
        sys.exit(f"{' '.join(map(str, command))}\nended with exit code {done.returncode}:\n{done.stdout}")
    return Run(seconds, int(memory[-1]) << 10, done.stdout)


def allocated(path):
    """Bytes of disk space a file takes: what counts for a sparse one."""
    return os.stat(path).st_blocks * 512


def scratch(space):
    """A folder for large files with `space` bytes free: TMPDIR if it is set, or build/."""
    folder = Path(os.environ.get("TMPDIR") or root() / "build")
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < space:
        sys.exit(f"{folder} has {mib(free)} free; {mib(space)} are needed: set TMPDIR to another folder")
    return folder


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


def table(rows):
    """Lines of a Markdown table; the first row is its head."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |"
             for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def same_bytes(a, b):
    return subprocess.run(["cmp", "--quiet", a, b]).returncode == 0


def root():
    return Path(__file__).resolve().parent.parent
