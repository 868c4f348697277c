# SPDX-License-Identifier: MIT
"""A pool in the Ceph that with-ceph started: images in it, by Ceph's own program."""
import json
import os
import signal
import subprocess
import sys
import time

from peers import PLATTER, platter, run

# Of this program alone, which counts what is in it; others run beside it.
POOL = os.path.splitext(os.path.basename(sys.argv[0]))[0]
run("ceph", "osd", "pool", "create", POOL, 8, 8)
run("rbd", "pool", "init", POOL)


# What shows how far it is, unless that is not wanted.
LONG = ("import", "export", "rm", "purge", "import-diff", "export-diff")


def rbd(*argv, **more):
    shows = set(argv[:2]) & set(LONG) and "namespace" not in argv and "lock" not in argv
    return run("rbd", *argv, *(["--no-progress"] if shows else []), **more)


def names(pool=POOL):
    return rbd("ls", pool).stdout.split()


def remove(name, pool=POOL):
    rbd("snap", "purge", f"{pool}/{name}")
    rbd("rm", f"{pool}/{name}")


def info(name, pool=POOL):
    return json.loads(rbd("info", "--format=json", f"{pool}/{name}").stdout)


def export(name, path, pool=POOL):
    """The bytes of an image, or of image@snapshot, as Ceph has them."""
    if os.path.exists(path):
        os.unlink(path)
    rbd("export", f"{pool}/{name}", path)
    return path


def joined(ranges):
    """(start, length) in order, those that touch as one."""
    out = []
    for start, length in sorted(ranges):
        if out and out[-1][0] + out[-1][1] >= start:
            out[-1] = (out[-1][0], max(out[-1][1], start + length - out[-1][0]))
        else:
            out.append((start, length))
    return out


def differences(name, since=None, pool=POOL):
    """What Ceph says is stored in an image, or was written since a snapshot."""
    more = ["--from-snap", since] if since else []
    ranges = json.loads(rbd("diff", "--format=json", *more, f"{pool}/{name}").stdout)
    return joined((r["offset"], r["length"]) for r in ranges)


def data(place, *options):
    """What platter says is data."""
    entries = json.loads(platter("map", "--output=json", *options, "-f", "raw", place).stdout)
    return joined((e["start"], e["length"]) for e in entries if e["data"])


def start(*argv):
    """A run of ours beside the test; with the signals of a terminal."""
    return subprocess.Popen([PLATTER, *map(str, argv)], stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)
