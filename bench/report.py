# SPDX-License-Identifier: MIT
"""Turns results into tables."""
import os
import platform
import subprocess
from pathlib import Path

from measure import mib, table


def median(values):
    """The lower one of two in the middle."""
    return sorted(values)[(len(values) - 1) // 2]


def spread(contestant):
    return (f"{median(contestant.seconds):.2f} "
            f"({min(contestant.seconds):.2f}-{max(contestant.seconds):.2f})")


def ratio(result, ours):
    return median(ours.seconds) / median(result.peer.seconds)


def limits_missed(result, ours):
    """The names of the limits that a row does not keep."""
    row = result.row
    met = {"memory": ours.peak <= row.memory,
           "time": row.limit is None or ratio(result, ours) <= row.limit,
           "seconds": row.seconds is None or median(ours.seconds) <= row.seconds,
           "later": row.later is None or median(ours.seconds) - median(result.peer.seconds) <= row.later,
           "size": row.size_limit is None or ours.size <= row.size_limit * result.peer.size}
    return [what for what, kept in met.items() if not kept]


def verdict(result, ours):
    if not result.equal:
        return "RESULT DIFFERS"
    missed = limits_missed(result, ours)
    return "no: " + ", ".join(missed) if missed else "yes"


def best_verdict(result):
    """In the way the peer works, where there are two."""
    return verdict(result, result.unsafe or result.ours)


def limit_text(row):
    limits = [] if row.limit is None else [f"{row.limit:g}x"]
    limits += [] if row.seconds is None else [f"{row.seconds:g} s"]
    return ", ".join(limits + ([] if row.later is None else [f"+{row.later:g} s"])) or "-"


def time_table(results):
    rows = [["row", "peer, s", "peer is", "limit", "platter, s", "ratio", "met",
             "-t unsafe, s", "ratio", "met"]]
    for result in results:
        cells = [result.row.name, spread(result.peer), result.peer.label, limit_text(result.row)]
        for ours in [result.ours, result.unsafe]:
            cells += [spread(ours), f"{ratio(result, ours):.2f}x", verdict(result, ours)] if ours \
                else ["-", "-", "-"]
        rows.append(cells)
    return table(rows)


def size_table(results):
    rows = [["row", "platter peak", "limit", "peer peak", "platter file", "peer file", "ratio", "limit"]]
    for result in results:
        ours, peer, row = result.ours, result.peer, result.row
        sizes = ["-", "-", "-"]
        if row.target and peer.size:
            sizes = [mib(ours.size), mib(peer.size), f"{ours.size / peer.size:.3f}x"]
        rows.append([row.name, mib(ours.peak), mib(row.memory), mib(peer.peak), *sizes,
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
        lines += ["", "## Floors", "", *floors]
    alike = sum(best_verdict(result) == "yes" for result in results)
    durable = sum(verdict(result, result.ours) == "yes" for result in results)
    kept = (f"{alike} of {len(results)} rows keep all their limits where both programs leave the target "
            f"to the host's cache, {durable} where platter waits until it is on the disk.")
    return "\n".join([*about, "", *lines, "", kept, ""])


INTRODUCTION = """# Results

Written by `make bench`. Times are medians of {runs} runs, with the shortest and the longest; the runs of
the programs alternate, sources are in the page cache, targets are on the same file system and are
removed after each run. The ratio is platter's median over the peer's. The peer is the better one of
qemu-img's defaults and `-m 16 -W` where both exist. `extents` opens a descriptor with 1,000 extents,
`random` reads 4 KiB here and there from a sparse VMDK of 64 GiB, `check` looks through one of 1 TiB with 20
GiB given out. `check-qcow2` looks through one of 1 TiB all of whose clusters are given out, `map` and `measure`
through one with 131,072 clusters that lie in no order. The rows from `snapshot-create` on change a fresh copy of
their image in each run, which is checked afterwards: snapshots of 64 GiB whose tables are complete, a `commit`
of 192 MiB, a `rebase` over an image that differs in 256 MiB, and requests of 4 KiB here and there, one at a
time and 16: `read` and `write` where there is data already, `fill` where there is none. The rows of `vma` are of
archives of the disk, beside copies of it as a raw file; `vma-verify` reads headers alone, `vma-extract-small` gets a
disk of 16 MiB out of an archive that also has the large one, beside getting both, and `vma-open` reads from an
archive of a full disk of 1 TiB, beside which an index is kept. `http` reads a compressed image from nginx, with
20 ms added to each request in `http-20ms`; `nbd-read` and `nbd-write` are beside nbdcopy, those of `serve`
are loads of fio's on a disk of 512 MiB that `platter serve` or qemu-nbd serves (its memory is the server's),
and `rbd`, `rbd-tuned` and `rbd-import` write into a Ceph of one node on the same machine. `boot-s3` prepares a
migration of a small Debian, a streamOptimized VMDK in that Ceph's S3, serves its target, and ends with the
first word of the kernel of an emulated machine that boots from there, beside the same with the VMDK in a local
file. The defaults of the programs differ in one thing that costs time: platter waits until a target is safely
on the disk before it gives it its name,
qemu-img's default (`-t unsafe`) leaves it to the host's cache. So platter is measured in both ways: as
it works by default, and with `-t unsafe`, which does what the peer does and is judged beside it.
Floors are run once. Each row's result was compared with the original disk once, by platter and by another program.
The disk: {disk}.

"""
