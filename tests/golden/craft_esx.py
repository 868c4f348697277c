# SPDX-License-Identifier: MIT
"""The sparse files of ESX laid out by hand: COWD (vmdk.md section 6) and seSparse (section 7). Only
what the format documents say is used here, nothing of what is tested."""
import struct

from craft import SECTOR, put_le

# Section 6: offset and length of each field of the header.
COWD_HEADER = {
    "magic": (0, 4), "version": (4, 4), "flags": (8, 4), "numSectors": (12, 4),
    "grainSize": (16, 4), "gdOffset": (20, 4), "numGDEntries": (24, 4), "freeSector": (28, 4),
    "parentGeneration": (1056, 4), "generation": (1060, 4), "savedGeneration": (1636, 4),
    "uncleanShutdown": (1648, 4)}

# Section 7: offset of each field of the constant header; all have 8 bytes.
SE_AREAS = ("volatileHeader", "journalHeader", "journal", "grainDirectory", "grainTables",
            "freeBitmap", "backMap", "grains")
SE_HEADER = {name: 8 * i for i, name in enumerate(
    ("magic", "version", "capacity", "grainSize", "grainTableSize", "flags", "reserved1",
     "reserved2", "reserved3", "reserved4", *(f"{area}{what}" for area in SE_AREAS
                                              for what in ("Offset", "Size")), "padding"))}
SE_VOLATILE = {"magic": 0, "freeGTNumber": 8, "nextTxnSeqNumber": 16, "replayJournal": 24,
               "padding": 32}

COWD_GTES = SE_GTES = 4096
SE_GRAIN = 4096


def ceil(a, b):
    return -(-a // b)


def put_cowd(image, name, value):
    at, length = COWD_HEADER[name]
    put_le(image, at, value, length)


def sectors(size):
    return ceil(size, SECTOR)


class Cowd:
    """A COWD file that grows as ESX grows it: a table before its first grain."""

    def __init__(self, capacity, grain=1, gd=4, generation=7):
        self.capacity, self.grain, self.gd = capacity, grain, gd
        entries = ceil(capacity, COWD_GTES * grain)
        self.out = bytearray((gd + sectors(entries * 4)) * SECTOR)
        for name, value in {"magic": 0x44574f43, "version": 1, "flags": 3, "numSectors": capacity,
                            "grainSize": grain, "gdOffset": gd, "numGDEntries": entries,
                            "generation": generation, "savedGeneration": 5}.items():
            put_cowd(self.out, name, value)
        put_le(self.out, 32 + 1024 - 4, 0x77777777)  # what is not known stays
        self.tables = {}

    def table(self, number):
        """Sector of a grain table."""
        if number not in self.tables:
            self.tables[number] = len(self.out) // SECTOR
            self.out += bytes(COWD_GTES * 4)
            put_le(self.out, self.gd * SECTOR + number * 4, self.tables[number])
        return self.tables[number]

    def entry_at(self, grain):
        return self.table(grain // COWD_GTES) * SECTOR + grain % COWD_GTES * 4

    def add(self, grain, data):
        """A grain with content, or with a number for its entry."""
        at, value = self.entry_at(grain), data
        if isinstance(data, (bytes, bytearray)):
            value = len(self.out) // SECTOR
            self.out += bytes(data).ljust(self.grain * SECTOR, b"\0")
        put_le(self.out, at, value)

    def add_all(self, content, numbers):
        size = self.grain * SECTOR
        for number in numbers:
            self.add(number, content[number * size:(number + 1) * size])
        return self

    def image(self):
        put_cowd(self.out, "freeSector", len(self.out) // SECTOR)
        return bytearray(self.out)


class SeSparse:
    """A seSparse file with areas as ESX lays them out, or closer together."""

    def __init__(self, capacity, align=8, tables=None, grains=None, bitmap=True):
        self.capacity = capacity
        entries = ceil(capacity, SE_GTES * 8)
        tables = entries if tables is None else tables
        sizes = {"volatileHeader": 1, "journalHeader": 2, "journal": align,
                 "grainDirectory": sectors(entries * 8), "grainTables": tables * 64,
                 "freeBitmap": sectors(ceil(capacity, 64)) if bitmap else 0,
                 "backMap": sectors(ceil(capacity, 8) * 8) if bitmap else 0,
                 "grains": capacity if grains is None else grains * 8}
        self.areas, at = {}, 1
        for name, size in sizes.items():
            if name in SE_AREAS[2:]:
                at, size = ceil(at, align) * align, ceil(size, align) * align
            self.areas[name] = (at, size)
            at += size
        self.out = bytearray(self.areas["grains"][0] * SECTOR)
        head = {"magic": 0xcafebabe, "version": 0x200000001, "capacity": capacity, "grainSize": 8,
                "grainTableSize": 64}
        for name, (at, size) in self.areas.items():
            head |= {f"{name}Offset": at, f"{name}Size": size}
        for name, value in head.items():
            self.put(name, value)
        for name, value in {"magic": 0xcafecafe, "nextTxnSeqNumber": 99}.items():
            self.put_volatile(name, value)
        self.tables, self.used = {}, 0

    def put(self, name, value):
        put_le(self.out, SE_HEADER[name], value, 8)

    def put_volatile(self, name, value):
        put_le(self.out, self.areas["volatileHeader"][0] * SECTOR + SE_VOLATILE[name], value, 8)

    def gde_at(self, number):
        return self.areas["grainDirectory"][0] * SECTOR + number * 8

    def entry_at(self, grain):
        number = grain // SE_GTES
        if number not in self.tables:
            self.tables[number] = len(self.tables)
            put_le(self.out, self.gde_at(number), 0x10000000 << 32 | self.tables[number], 8)
            self.put_volatile("freeGTNumber", len(self.tables))
        return (self.areas["grainTables"][0] + 64 * self.tables[number]) * SECTOR + \
            grain % SE_GTES * 8

    @staticmethod
    def entry(kind, index=0):
        return kind << 60 | (index & 0xfff) << 48 | index >> 12

    def set(self, grain, value):
        put_le(self.out, self.entry_at(grain), value, 8)

    def add(self, grain, data, index=None):
        """A grain with content, at an index of the grain area."""
        index = self.used if index is None else index
        self.used = max(self.used, index + 1)
        self.set(grain, self.entry(3, index))
        at = self.areas["grains"][0] * SECTOR + index * SE_GRAIN
        self.out += bytes(max(0, at + SE_GRAIN - len(self.out)))
        self.out[at:at + SE_GRAIN] = bytes(data).ljust(SE_GRAIN, b"\0")

    def add_all(self, content, numbers):
        for number in numbers:
            self.add(number, content[number * SE_GRAIN:(number + 1) * SE_GRAIN])
        return self

    def unmapped(self, grain):
        """The guest gave it back: the entry keeps the index."""
        self.set(grain, self.entry(1, self.used))
        self.used += 1

    def zeroed(self, grain):
        self.set(grain, self.entry(2))

    def image(self):
        return bytearray(self.out)


def text(kind, lines, cid="12345678", parent=None, parent_cid="ffffffff"):
    """A descriptor in the order that other programs want."""
    head = ["# Disk DescriptorFile", "version=1", f"CID={cid}", f"parentCID={parent_cid}",
            f'createType="{kind}"']
    if parent:
        head.append(f'parentFileNameHint="{parent}"')
    return "\n".join([*head, "", "# Extent description", *lines, "", "# The Disk Data Base",
                      "#DDB", "", 'ddb.adapterType = "lsilogic"', ""]).encode()


def numbers(image, at, count, length=4):
    return struct.unpack_from(f"<{count}{'I' if length == 4 else 'Q'}", image, at)
