# SPDX-License-Identifier: MIT
"""Images laid out by hand, for what the peers do not make, and the places of fields in images that
are there. Only what the format documents say is used here, nothing of what is tested."""
import struct
import zlib

CLUSTER = 65536
SECTOR = 512

# ---- qcow2 -----------------------------------------------------------------------------------

COPIED = 1 << 63
PACKED = 1 << 62
ZERO = 1

# qcow2.md section 2: offset and length of each field of the header.
QCOW2_HEADER = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8), "backing_file_size": (16, 4),
    "cluster_bits": (20, 4), "size": (24, 8), "crypt_method": (32, 4), "l1_size": (36, 4),
    "l1_table_offset": (40, 8), "refcount_table_offset": (48, 8),
    "refcount_table_clusters": (56, 4), "nb_snapshots": (60, 4), "snapshots_offset": (64, 8),
    "incompatible_features": (72, 8), "compatible_features": (80, 8),
    "autoclear_features": (88, 8), "refcount_order": (96, 4), "header_length": (100, 4),
    "compression_type": (104, 1)}


def get(image, at, length=8):
    return int.from_bytes(image[at:at + length], "big")


def put(image, at, value, length=8):
    image[at:at + length] = value.to_bytes(length, "big")


def field(image, name):
    return get(image, *QCOW2_HEADER[name])


def put_field(image, name, value):
    at, length = QCOW2_HEADER[name]
    put(image, at, value, length)


def l1_at(image, index=0):
    """Where the L1 entry stands."""
    return field(image, "l1_table_offset") + 8 * index


def l2_at(image, index=0, width=8, table=0):
    """Where the L2 entry of guest cluster `index` of a table stands."""
    return (get(image, l1_at(image, table)) & 0x00FFFFFFFFFFFE00) + width * index


def packed_at(image, index):
    """Offset of the stream of a packed cluster, and how many bytes may belong to it."""
    entry = get(image, l2_at(image, index))
    assert entry & PACKED
    x = 62 - (field(image, "cluster_bits") - 8)
    offset = entry & ((1 << x) - 1)
    sectors = (entry & ~PACKED) >> x
    return offset, (sectors + 1) * 512 - offset % 512


def packed_entry(cluster_bits, offset, length):
    """The L2 entry of a packed cluster: qcow2.md section 5."""
    x = 62 - (cluster_bits - 8)
    sectors = (offset + length - 1) // 512 - offset // 512
    return PACKED | sectors << x | offset


def deflate(data, window=-15):
    packer = zlib.compressobj(9, zlib.DEFLATED, window, 9)
    return packer.compress(data) + packer.flush()


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


class Qcow2:
    """Clusters 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, then whatever is added.
    All counts are one, but for those in `counts`."""

    def __init__(self, size, cluster_bits=16, version=3, header_length=112, incompatible=0,
                 autoclear=0, extensions=b"", compression=0, wide=False, backing=b""):
        self.cs = 1 << cluster_bits
        self.bits = cluster_bits
        self.size = size
        self.wide = wide
        self.body = bytearray()
        self.entries = {}
        self.counts = {}
        self.l1 = [4 * self.cs | COPIED]
        name_at = (72 if version == 2 else header_length) + len(extensions) + 8
        head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, name_at if backing else 0,
                           len(backing), cluster_bits, size, 0, 1, 3 * self.cs, self.cs, 1, 0, 0)
        if version == 3:
            head += struct.pack(">QQQII", incompatible, 0, autoclear, 4, header_length)
            head += bytes([compression]) + bytes(max(0, header_length - 105))
            head = head[:header_length]
        self.head = bytearray(head + extensions + bytes(8) + backing)

    def end(self):
        return 5 * self.cs + len(self.body)

    def align(self, by):
        self.body += bytes(-len(self.body) % by)

    def data(self, index, content, flags=COPIED):
        """A cluster of data for a guest cluster, or what there is of its start."""
        self.align(self.cs)
        self.entries[index] = self.end() | flags
        self.body += content
        return self.entries[index]

    def packed(self, index, stream):
        """A packed stream right behind what was added before."""
        self.entries[index] = packed_entry(self.bits, self.end(), len(stream))
        for cluster in range(self.end() // self.cs, (self.end() + len(stream) - 1) // self.cs + 1):
            self.counts[cluster] = self.counts.get(cluster, 0) + 1
        self.body += stream

    def image(self):
        cs = self.cs
        out = bytearray(5 * cs) + self.body
        out[0:len(self.head)] = self.head
        put(out, cs, 2 * cs)
        for cluster in range((len(out) + cs - 1) // cs):
            put(out, 2 * cs + 2 * cluster, self.counts.get(cluster, 1), 2)
        for index, entry in enumerate(self.l1):
            put(out, 3 * cs + 8 * index, entry)
        for index, entry in self.entries.items():
            if self.wide:
                put(out, 4 * cs + 16 * index, entry[0])
                put(out, 4 * cs + 16 * index + 8, entry[1])
            else:
                put(out, 4 * cs + 8 * index, entry)
        return bytes(out)


# ---- VMDK --------------------------------------------------------------------------------------

# vmdk.md section 4.1: offset and length of each field of the header of a sparse extent.
VMDK_HEADER = {
    "magic": (0, 4), "version": (4, 4), "flags": (8, 4), "capacity": (12, 8), "grainSize": (20, 8),
    "descriptorOffset": (28, 8), "descriptorSize": (36, 8), "numGTEsPerGT": (44, 4),
    "rgdOffset": (48, 8), "gdOffset": (56, 8), "overHead": (64, 8), "uncleanShutdown": (72, 1),
    "singleEndLineChar": (73, 1), "nonEndLineChar": (74, 1), "doubleEndLineChar1": (75, 1),
    "doubleEndLineChar2": (76, 1), "compressAlgorithm": (77, 2)}

AT_END = (1 << 64) - 1


def le(image, at, length=4):
    return int.from_bytes(image[at:at + length], "little")


def put_le(image, at, value, length=4):
    image[at:at + length] = value.to_bytes(length, "little")


def vmdk_field(image, name):
    at, length = VMDK_HEADER[name]
    return le(image, at, length)


def put_vmdk(image, name, value, base=0):
    at, length = VMDK_HEADER[name]
    put_le(image, base + at, value, length)


def vmdk_header(capacity, gd, flags, version=1, grain=128, descriptor=20, rgd=0, overhead=128,
                packed=0):
    return struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, flags, capacity, grain,
                       1 if descriptor else 0, descriptor, 512, rgd, gd, overhead, 0, b"\n \r\n",
                       packed).ljust(SECTOR, b"\0")


def descriptor(kind, lines, cid="12345678", newline="\n"):
    text = ["# Disk DescriptorFile", "version=1", f"CID={cid}", "parentCID=ffffffff",
            f'createType="{kind}"', "", "# Extent description", *lines, "",
            "# The Disk Data Base", "#DDB", "", 'ddb.adapterType = "lsilogic"', ""]
    return newline.join(text).encode()


def marker(sectors, kind):
    return struct.pack("<QII", sectors, 0, kind).ljust(SECTOR, b"\0")


def grain_record(lba, data, level=6):
    packed = zlib.compress(data, level)
    record = struct.pack("<QI", lba, len(packed)) + packed
    return record + bytes(-len(record) % SECTOR)


def plain_record(_lba, data, level=6):
    """Of a stream without markers: the length alone in front."""
    packed = zlib.compress(data, level)
    record = struct.pack("<I", len(packed)) + packed
    return record + bytes(-len(record) % SECTOR)


def grain_records(content, record=grain_record, last=CLUSTER, level=6):
    """The grains of a disk that are not all zeros, and their records. The last grain is packed up
    to `last` bytes of it, or all there is if that is more."""
    for number in range((len(content) + CLUSTER - 1) // CLUSTER):
        data = content[number * CLUSTER:(number + 1) * CLUSTER]
        if any(data):
            yield number, record(number * 128, data.ljust(last, b"\0"), level)


def stream_vmdk(content, header_capacity=None, noise=b"", kind4=False, capacity=None, overhead=128,
                flags=0x30001, rgd=0, version=3, text=None, text_sectors=127, eos=True, **how):
    """A streamOptimized image as exporters write it: directory and footer at the end. `rgd` "gd":
    both directories are said to be the one."""
    if capacity is None:
        capacity = (len(content) + SECTOR - 1) // SECTOR
    fields = {"version": version, "overhead": overhead, "packed": 1,
              "rgd": AT_END if rgd == "gd" else rgd,
              "descriptor": min(text_sectors, 20)}
    if text is None:
        text = descriptor("streamOptimized", [f'RDONLY {capacity} SPARSE "generated-stream.vmdk"'])
    header = vmdk_header(capacity if header_capacity is None else header_capacity, AT_END, flags,
                         **fields)
    out = bytearray((header + text.ljust(text_sectors * SECTOR, b"\0")).ljust(overhead * SECTOR,
                                                                              b"\0"))
    tables = {}
    for number, record in grain_records(content, **how):
        if tables and number // 512 not in tables:
            end_table(out, tables)
        tables.setdefault(number // 512, {})[number % 512] = len(out) // SECTOR
        out += record
        if kind4 and number % 4 == 0:
            out += marker(0, 4)
    if tables:
        end_table(out, tables)
    sectors = ((capacity + 65535) // 65536 * 4 + SECTOR - 1) // SECTOR
    out += marker(sectors, 2)
    gd = len(out) // SECTOR
    directory = bytearray(sectors * SECTOR)
    for table, at in tables.items():
        put_le(directory, 4 * table, at)
    out += directory + marker(1, 3)
    out += vmdk_header(capacity, gd, flags, **fields | {"rgd": gd if rgd == "gd" else rgd})
    return bytes(out + (marker(0, 0) if eos else b"") + noise)


def end_table(out, tables):
    """Writes the table of the last grains, and puts its place where its entries were."""
    table = max(tables)
    entries = bytearray(4 * SECTOR)
    for index, at in tables[table].items():
        put_le(entries, 4 * index, at)
    out += marker(4, 1)
    tables[table] = len(out) // SECTOR
    out += entries


def front_vmdk(content, flags=0x30001, version=3, order=None, tail=b"", cut=0, **how):
    """A stream of one table with the directory in front, as converters write it; `order` sorts the
    records."""
    capacity = (len(content) + SECTOR - 1) // SECTOR
    text = descriptor("streamOptimized", [f'RW {capacity} SPARSE "x.vmdk"'])
    out = bytearray(vmdk_header(capacity, 21, flags, version=version, packed=1)
                    + text.ljust(20 * SECTOR, b"\0"))
    out += struct.pack("<I", 22).ljust(SECTOR, b"\0") + bytes(106 * SECTOR)
    for number, record in sorted(grain_records(content, **how), key=order):
        put_le(out, 22 * SECTOR + 4 * number, len(out) // SECTOR)
        out += record
    return bytes(out[:len(out) - cut] + tail)


def sparse_vmdk(capacity, grains, flags=1, version=1, grain=128, no_tables=False, tail=None):
    """A monolithicSparse image of one grain table; `grains` maps numbers to content, or to the
    value that stands in the table. `no_tables` leaves the directory empty."""
    text = descriptor("monolithicSparse", [f'RW {capacity} SPARSE "x.vmdk"'], cid="7b")
    header = vmdk_header(capacity, 21, flags, version=version, grain=grain)
    out = bytearray(header + text.ljust(20 * SECTOR, b"\0"))
    out += struct.pack("<I", 0 if no_tables else 22).ljust(SECTOR, b"\0")
    out += bytes(4 * SECTOR)
    out += bytes(128 * SECTOR - len(out))
    for number, data in grains.items():
        value = data
        if isinstance(data, bytes):
            value = len(out) // SECTOR
            out += data
        put_le(out, 22 * SECTOR + 4 * number, value)
    return bytes(out if tail is None else out[:tail])
