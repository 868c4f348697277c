# SPDX-License-Identifier: MIT
"""What a guest wrote to a disk, as a log of it tells, and what the disk must be therefore.

The log is that of QEMU's driver blklogwrites, in the form of Linux's dm-log-writes: a sector that says
how many entries there are and how long a sector is; then the entries, each a sector that says where,
followed by what was written unless that was a discard.
"""
import os
import struct

from peers import MIB, data_of

MAGIC = 0x6a736677736872
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
DISCARD = 1 << 2
SECTOR = 512


def entries(path):
    """(offset, length, bytes or None if it was a discard), in the order in which they came."""
    with open(path, "rb") as log:
        magic, version, count, sector = SUPER.unpack(log.read(SUPER.size))
        assert (magic, version, sector) == (MAGIC, 1, SECTOR), f"{path} is no log of writes"
        at = SECTOR
        for _ in range(count):
            log.seek(at)
            start, sectors, flags, _ = ENTRY.unpack(log.read(ENTRY.size))
            at += SECTOR
            if flags & DISCARD:
                yield start * SECTOR, sectors * SECTOR, None
            elif sectors:
                log.seek(at)
                data = log.read(sectors * SECTOR)
                assert len(data) == sectors * SECTOR, f"{path} is torn"
                at += len(data)
                yield start * SECTOR, len(data), data


def replay(log, disk):
    """Does to a raw disk what was logged. What was discarded, and not written since, as one byte a
    sector that is 1: it may have become zeros, or not. And how many bytes were written."""
    dropped, written = bytearray(os.path.getsize(disk) // SECTOR), 0
    with open(disk, "r+b") as f:
        for start, length, data in entries(log):
            first, end = start // SECTOR, (start + length) // SECTOR
            dropped[first:end] = (b"\1" if data is None else b"\0") * (end - first)
            if data is not None:
                f.seek(start)
                f.write(data)
                written += length
    return dropped, written


def differences(disk, expected, dropped):
    """The sectors in which a disk is not what it must be; at most 20."""
    with open(disk, "rb") as f, open(expected, "rb") as g:
        assert os.fstat(f.fileno()).st_size == os.fstat(g.fileno()).st_size, "another size"
        found, done = [], 0
        for start, end in sorted([*data_of(f), *data_of(g)]):
            start = max(start, done) // SECTOR * SECTOR
            for at in range(start, end, MIB):
                is_now, must = (os.pread(x.fileno(), min(MIB, end - at), at) for x in (f, g))
                if is_now == must:
                    continue
                for i in range(0, len(must), SECTOR):
                    now = is_now[i:i + SECTOR]
                    if now != must[i:i + SECTOR] and (any(now) or not dropped[(at + i) // SECTOR]):
                        found.append((at + i) // SECTOR)
            done = max(done, end)
    return found[:20]
