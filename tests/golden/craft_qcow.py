# SPDX-License-Identifier: MIT
"""QCOW version 1 laid out by hand, after qcow.md sections 2 to 5."""
import struct
import zlib

PACKED = 1 << 63


def deflate(data, bits=-12):
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(data) + packer.flush()


class Qcow:
    """An image that grows as things are put into it. L1 and L2 tables stand where `l1_at` and
    `table_align` say."""

    def __init__(self, size, cluster_bits=12, l2_bits=9, l1_at=48, table_align=None):
        self.size, self.bits, self.l2_bits, self.l1_at = size, cluster_bits, l2_bits, l1_at
        self.cluster, self.per_table = 1 << cluster_bits, 1 << l2_bits
        self.table_align = table_align or self.cluster
        self.tables = {}
        n = -(-size // (self.cluster * self.per_table))
        self.out = bytearray(l1_at + 8 * n)
        struct.pack_into(">IIQIIQBBHIQ", self.out, 0, 0x514649FB, 1, 0, 0, 1234567, size,
                         cluster_bits, l2_bits, 0, 0, l1_at)

    def room(self, align):
        """Where the file ends, filled up with what is nobody's."""
        self.out += bytes(-len(self.out) % align)
        return len(self.out)

    def l2_at(self, index):
        """Where the entry of a cluster stands; its table is made if it is not there."""
        table, i = divmod(index, self.per_table)
        if table not in self.tables:
            self.tables[table] = self.room(self.table_align)
            self.out += bytes(8 * self.per_table)
            struct.pack_into(">Q", self.out, self.l1_at + 8 * table, self.tables[table])
        return self.tables[table] + 8 * i

    def enter(self, index, entry):
        struct.pack_into(">Q", self.out, self.l2_at(index), entry)

    def data(self, index, data, align=None):
        at = self.l2_at(index)
        struct.pack_into(">Q", self.out, at, self.room(align or self.cluster))
        self.out += data

    def packed(self, index, stream):
        at = self.l2_at(index)
        struct.pack_into(">Q", self.out, at,
                         PACKED | len(stream) << (63 - self.bits) | len(self.out))
        self.out += stream

    def image(self):
        return bytes(self.out)
