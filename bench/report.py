# SPDX-License-Identifier: MIT
"""Turns results into tables."""
import os
import platform
import subprocess
from pathlib import Path

from measure import mib, table

PEAK_LIMIT = 128 << 20  # bytes of memory that no row may pass


def median(values):
    """The lower one of two in the middle."""
    return sorted(values)[(len(values) - 1) // 2]


def spread(contestant):
    return (f"{median(contestant.seconds):.2f} "
            f"({min(contestant.seconds):.2f}-{max(contestant.seconds):.2f})")


def ratio(result):
    return median(result.ours.seconds) / median(result.peer.seconds)


def limits_met(result):
    """Whether a row keeps each of its limits: [(what, bool)]."""
    row = result.row
    met = [("memory", result.ours.peak <= PEAK_LIMIT)]
    if row.limit is not None:
        met.append(("time", ratio(result) <= row.limit))
    if row.seconds is not None:
        met.append(("time", median(result.ours.seconds) <= row.seconds))
    if row.size_limit is not None:
        met.append(("size", result.ours.size <= row.size_limit * result.peer.size))
    return met


def verdict(result):
    if not result.equal:
        return "RESULT DIFFERS"
    missed = [what for what, met in limits_met(result) if not met]
    return "no: " + ", ".join(missed) if missed else "yes"


def limit_text(row):
    if row.seconds is not None:
        return f"{row.seconds:g} s"
    return "-" if row.limit is None else f"{row.limit:g}x"


def time_table(results):
    rows = [["row", "platter, s", "peer, s", "peer is", "ratio", "limit", "met"]]
    for result in results:
        rows.append([result.row.name, spread(result.ours), spread(result.peer), result.peer.label,
                     f"{ratio(result):.2f}x", limit_text(result.row), verdict(result)])
    return table(rows)


def size_table(results):
    rows = [["row", "platter peak", "peer peak", "platter file", "peer file", "ratio", "limit"]]
    for result in results:
        ours, peer, row = result.ours, result.peer, result.row
        sizes = ["-", "-", "-"]
        if row.target:
            sizes = [mib(ours.size), mib(peer.size), f"{ours.size / peer.size:.3f}x"]
        rows.append([row.name, mib(ours.peak), mib(peer.peak), *sizes,
                     "-" if row.size_limit is None else f"{row.size_limit:g}x"])
    return table(rows)


def floor_table(results):
    rows = [["row", "platter, s", "beside it", "s"]]
    for result in results:
        for contestant in result.beside:
            rows.append([result.row.name, f"{median(result.ours.seconds):.2f}", contestant.label,
                         f"{median(contestant.seconds):.2f}"])
    return table(rows) if len(rows) > 1 else []


def first_line(command):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine(platter, folder):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    file_system = first_line(["findmnt", "-n", "-o", "FSTYPE", "-T", folder])
    return [f"- {cpu_model()}, {os.cpu_count()} cores, {memory / (1 << 30):.0f} GiB of memory",
            f"- Linux {platform.release()}, {file_system}",
            f"- {first_line([platter, '--version'])}",
            f"- {first_line(['qemu-img', '--version'])}",
            f"- {first_line(['sha256sum', '--version'])}"]


def text(results, about):
    lines = ["## Time", "", *time_table(results), "", "## Memory and size", "",
             *size_table(results)]
    floors = floor_table(results)
    if floors:
        lines += ["", "## Floors, and platter without waiting for the disk", "", *floors]
    kept = sum(verdict(result) == "yes" for result in results)
    return "\n".join([*about, "", *lines, "", f"{kept} of {len(results)} rows keep all their limits.",
                      ""])


INTRODUCTION = """# Results

Written by `make bench`. Times are medians of {runs} runs, with the shortest and the longest; the runs of
the programs alternate, sources are in the page cache, targets are on the same file system and are
removed after each run. The ratio is platter's median over the peer's. The peer is the better one of
qemu-img's defaults and `-m 16 -W` where both exist. Both programs run with their defaults, which
differ in one thing that costs platter time: it waits until a target is safely on the disk before it
gives it its name, qemu-img leaves that to later (`-t unsafe`, among the floors, does the same).
Each row's result was compared with the original disk once, by platter and by another program. No
row may take more than 128 MiB of memory.
The disk: {disk}.

"""
