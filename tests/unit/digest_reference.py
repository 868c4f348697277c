#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tree digest of docs/digest.md over a raw file, written from that document alone.

usage: digest_reference.py FILE      prints the digest in hexadecimal

It is short rather than fast, but for one thing: a subtree of zeros is computed once a level, so that
large sparse files can be checked too.
"""
import hashlib
import os
import sys

LEAF, FANOUT = 64 << 10, 256


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


ZERO = [sha(b"\0", bytes(LEAF))]
for level in range(1, 7):
    ZERO.append(sha(bytes([level]), ZERO[-1] * FANOUT))


def is_hole(fd, start, end):
    """Whether the file has no data in [start, end)."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA) >= end
    except OSError:  # no data up to the end of the file
        return True


def subtree(fd, size, level, start):
    """The hash of the subtree of `level` whose first byte is at `start`."""
    span = LEAF * FANOUT**level
    if start >= size or is_hole(fd, start, start + span):
        return ZERO[level]
    if level == 0:
        return sha(b"\0", os.pread(fd, LEAF, start).ljust(LEAF, b"\0"))
    children = (subtree(fd, size, level - 1, start + i * (span // FANOUT)) for i in range(FANOUT))
    return sha(bytes([level]), *children)


def digest(path):
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    height = 1
    while LEAF * FANOUT**height < size:
        height += 1
    return sha(b"platter tree digest 1\n", size.to_bytes(8, "little"), subtree(fd, size, height, 0))


if __name__ == "__main__":
    print(digest(sys.argv[1]).hex())
