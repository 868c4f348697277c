# SPDX-License-Identifier: MIT
"""A reader of streamOptimized files of its own, for judging ours: it goes through a file sector by
sector as a pipe would, and compares what it meets with the disk and with the tables at the end."""
import os
import re
import struct
import zlib

SECTOR, GRAIN, ENTRIES, FRONT = 512, 128, 512, 128  # sectors, sectors, entries, sectors
GRAIN_BYTES = GRAIN * SECTOR
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433s")
NAMES = ("magic version flags capacity grain descriptor descriptor_size entries rgd gd overhead "
         "unclean newlines compression pad").split()
AT_END = (1 << 64) - 1
EOS, TABLE, DIRECTORY, FOOTER = range(4)


def is_zero(data):
    return not any(data)


def require(what, got, expected):
    assert got == expected, f"{what}: {got!r}, expected {expected!r}"


class Walk:
    """What a file consists of. Fails where it is not laid out as VMware lays it out."""

    def __init__(self, path, raw, flags=0x30001):
        self.size = os.path.getsize(raw)
        self.grains = {}  # number -> sector of its record
        self.gd = {}  # number -> sector of its table
        self.longest = 0  # record, bytes
        with open(path, "rb") as self.f, open(raw, "rb") as self.raw:
            self.front(flags)
            self.body()
            self.holes()

    def take(self, sectors):
        data = self.f.read(sectors * SECTOR)
        require("bytes left in the file", len(data), sectors * SECTOR)
        return data

    def here(self):
        return self.f.tell() // SECTOR

    # ---- what stands in front -------------------------------------------------------------------

    def front(self, flags):
        self.header = self.take(1)
        fields = dict(zip(NAMES, HEADER.unpack(self.header)))
        capacity = -(-self.size // SECTOR)
        expected = {"magic": b"KDMV", "version": 3, "flags": flags, "capacity": capacity,
                    "grain": GRAIN, "descriptor": 1, "descriptor_size": 20, "entries": ENTRIES,
                    "rgd": 0, "gd": AT_END, "overhead": FRONT, "unclean": 0,
                    "newlines": b"\n \r\n", "compression": 1, "pad": bytes(433)}
        require("header", fields, expected)
        self.capacity = capacity
        area = self.take(20)
        text = area[:area.index(0)]
        assert is_zero(area[len(text):]), "something stands behind the descriptor's text"
        assert is_zero(self.take(FRONT - 21)), "something stands between descriptor and grains"
        self.descriptor(text.decode())

    def descriptor(self, text):
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert re.fullmatch("CID=[0-9a-f]{8}", lines[1]) and lines[1][4:11] != "fffffff", lines[1]
        require("descriptor", lines[0:1] + lines[2:4],
                ["version=1", "parentCID=ffffffff", 'createType="streamOptimized"'])
        assert re.fullmatch(rf'(RW|RDONLY) {self.capacity} SPARSE "[^"]+"', lines[4]), lines[4]
        keys = [line.split(" = ")[0] for line in lines[5:]]
        require("disk database", sorted(keys), sorted(set(keys)))
        assert all(re.fullmatch(r'ddb\.[\w.]+ = "[^"]*"', line) for line in lines[5:]), lines

    # ---- grains and markers ---------------------------------------------------------------------

    def body(self):
        table = {}  # entries since the last table
        while True:
            sector = self.here()
            head = self.take(1)
            value, size, kind = struct.unpack_from("<QII", head)
            if size:
                self.record(sector, head, value, size, table)
                continue
            assert is_zero(head[16:]), f"sector {sector}: something stands behind a marker"
            if kind != TABLE:
                break
            self.table(value, table)
        require("entries without a table", table, {})
        self.directory(sector, value, kind)
        self.end()

    def record(self, sector, head, lba, size, table):
        grain = lba // GRAIN
        assert lba % GRAIN == 0 and lba < self.capacity, f"sector {sector}: LBA {lba}"
        assert grain > max(self.grains, default=-1), f"sector {sector}: grain {grain} comes late"
        assert size <= (GRAIN + 1) * SECTOR - 12, f"sector {sector}: a record of {size} bytes"
        assert len({g // ENTRIES for g in table} | {grain // ENTRIES}) == 1, \
            f"sector {sector}: the table before grain {grain} is missing"
        data = head + self.take(-(-(12 + size) // SECTOR) - 1)
        assert is_zero(data[12 + size:]), f"sector {sector}: padding is not zero"
        inflate = zlib.decompressobj()
        content = inflate.decompress(data[12:12 + size])
        assert inflate.eof and not inflate.unused_data, f"sector {sector}: not one zlib stream"
        require(f"bytes of grain {grain}", len(content), GRAIN_BYTES)
        assert content == self.of_disk(grain), f"grain {grain}: other bytes than the disk has"
        assert not is_zero(content), f"grain {grain}: is zero and need not be there"
        self.grains[grain] = table[grain] = sector
        self.longest = max(self.longest, 12 + size)

    def of_disk(self, grain):
        self.raw.seek(grain * GRAIN_BYTES)
        return self.raw.read(GRAIN_BYTES).ljust(GRAIN_BYTES, b"\0")

    def table(self, sectors, table):
        require("sectors of a table", sectors, ENTRIES * 4 // SECTOR)
        assert table, f"sector {self.here() - 1}: an empty table is written"
        number = min(table) // ENTRIES
        self.gd[number] = self.here()
        entries = struct.unpack(f"<{ENTRIES}I", self.take(sectors))
        expected = [table.get(number * ENTRIES + i, 0) for i in range(ENTRIES)]
        require(f"table {number}", list(entries), expected)
        table.clear()

    # ---- the end --------------------------------------------------------------------------------

    def directory(self, sector, sectors, kind):
        tables = -(-self.capacity // (GRAIN * ENTRIES))
        require(f"marker at sector {sector}", kind, DIRECTORY)
        require("sectors of the directory", sectors, max(1, -(-tables * 4 // SECTOR)))
        self.gd_at = self.here()
        entries = struct.unpack(f"<{sectors * SECTOR // 4}I", self.take(sectors))
        expected = [self.gd.get(i, 0) for i in range(len(entries))]
        require("directory", list(entries), expected)

    def end(self):
        require("marker of the footer", self.take(1), struct.pack("<QII", 1, 0, FOOTER) + bytes(496))
        footer = self.header[:56] + struct.pack("<Q", self.gd_at) + self.header[64:]
        require("footer", self.take(1), footer)
        require("end of stream", self.take(1), bytes(SECTOR))
        require("bytes behind the end", self.f.read(), b"")

    def holes(self):
        """What the stream left out is zero on the disk."""
        fd, at = self.raw.fileno(), 0
        while at < self.size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return
            grain = at // GRAIN_BYTES
            if grain not in self.grains:
                assert is_zero(self.of_disk(grain)), f"grain {grain} was left out"
            at = (grain + 1) * GRAIN_BYTES
