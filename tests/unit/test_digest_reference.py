#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `platter digest` with the reference, and with itself over other formats of one disk.

usage: test_digest_reference.py PLATTER
"""
import os
import random
import subprocess
import sys
import tempfile

from digest_reference import digest

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

# size, and where random bytes stand in it: (offset, length)
DISKS = [
    (0, []),
    (1, [(0, 1)]),
    (512, []),
    (64 * KIB - 512, [(0, 64 * KIB - 512)]),
    (64 * KIB, [(0, 512)]),
    (64 * KIB + 512, [(64 * KIB, 512)]),
    (16 * MIB, [(0, 16 * MIB)]),
    (16 * MIB + 512, [(16 * MIB, 512)]),
    (100 * MIB, [(5, 3 * MIB), (30 * MIB + 7, 20 * MIB), (99 * MIB, MIB)]),
    (4 * GIB + 512, [(0, 1), (4 * GIB, 512)]),
    (8 * TIB, [(16 * MIB - 1, 2), (5 * TIB + 12345, 1 * MIB), (8 * TIB - 1, 1)]),
]

# -O and -o, or -c, of convert
FORMATS = [
    ["-O", "qcow2"],
    ["-O", "qcow2", "-c"],
    ["-O", "qcow2", "-o", "cluster_size=2M"],
    ["-O", "vmdk"],
    ["-O", "vmdk", "-o", "subformat=streamOptimized"],
]


def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def make(path, size, places):
    rng = random.Random(size)
    with open(path, "wb") as f:
        f.truncate(size)
        for off, length in places:
            f.seek(off)
            f.write(rng.randbytes(length))


def check(platter, folder, size, places):
    raw, other = os.path.join(folder, "disk"), os.path.join(folder, "other")
    make(raw, size, places)
    wanted = digest(raw)
    seen = {"raw": run(platter, "digest", "-f", "raw", raw).split()[0]}
    # Formats with sectors round a size up, which makes it another disk; huge VMDKs do not exist.
    if size > 0 and size % 512 == 0 and size < TIB:
        for how in FORMATS:
            run(platter, "convert", "-f", "raw", *how, raw, other)
            seen[" ".join(how)] = run(platter, "digest", other).split()[0]
    wrong = [f"size {size}, {how}: {d}, not {wanted.hex()}" for how, d in seen.items()
             if d != wanted.hex()]
    print("\n".join(wrong) or f"size {size}: {wanted.hex()} in {len(seen)} forms")
    return not wrong


def main():
    with tempfile.TemporaryDirectory() as folder:
        good = [check(sys.argv[1], folder, *disk) for disk in DISKS]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
