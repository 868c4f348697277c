# SPDX-License-Identifier: MIT
"""VMDK images as they are met in the wild, each laid out by hand, and what must come out.

The lines of vmdk.md section 16, and the layouts of section 5.4, are shown by:

    VMware OVA exports              Streams vmware-export
    vSphere: marker 4, version 3    Streams markers-of-type-4; every stream here is of version 3
    VirtualBox OVA                  Streams virtualbox; Texts virtualbox
    OVA: padding                    Streams tar-padding
    OVA: gzip, the archive itself   Packed; Refused tar
    build tools appending text      Streams text-behind, text-behind-odd
    QEMU                            interop/vmdk.py; Streams old-qemu
    split sets from VMware          Texts other-case, pieces-of-2047-mib; RDONLY: every stream
    truncated downloads             damaged_vmdk.py Cuts, salvage.py
    flat disks                      Texts flat-longer; damaged_vmdk.py Flat extent_short
    images renamed on disk          Streams renamed; Refused renamed-extent
    AWS and ESXi import             what is written: interop/vmdk_create.py
"""
import gzip
import io
import os
import random
import struct
import tarfile
import zlib

import craft
from craft import AT_END, CLUSTER, SECTOR
from harm import Harm
from peers import KIB, MIB, add_case, main, platter, text_like


def content(size, seed, holes=()):
    data = bytearray(text_like(random.Random(seed), size))
    for hole in holes:
        data[hole * CLUSTER:(hole + 1) * CLUSTER] = bytes(CLUSTER)
    return bytes(data[:size])


DATA = content(9 * CLUSTER, 1, holes=[2, 3, 7])
RAGGED = content(3 * CLUSTER + 5 * SECTOR, 2)

# Three tables, of which the middle one has nothing.
TABLES = DATA + bytes(64 * MIB) + DATA[:CLUSTER]

VMWARE = """# Disk DescriptorFile
version=1 \nCID=7f31b3f5 \nparentCID=ffffffff \ncreateType="streamOptimized" \n
# Extent description
RDONLY {sectors} SPARSE "generated-stream.vmdk" \n
# The Disk Data Base \n#DDB

ddb.adapterType = "lsilogic" \nddb.encoding = "windows-1252" \nddb.longContentID = \
"4de4e4b3c2ad5d8d1e1e1b5b7f31b3f5" \nddb.uuid = \
"60 00 C2 9e 3c 5f 2a 11-61 8e 70 2d 8a 51 3b 09" \n"""

VIRTUALBOX = """# Disk DescriptorFile
version=1
CID=a9d5b4f0
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY {sectors} SPARSE "vm-disk001.vmdk"

# The disk Data Base \n#DDB

ddb.virtualHWVersion = "4"
ddb.adapterType="ide"
ddb.uuid.image="9a0a4b5c-6d7e-4f80-91a2-b3c4d5e6f708"
ddb.uuid.parent="00000000-0000-0000-0000-000000000000"
ddb.uuid.modification="00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification="00000000-0000-0000-0000-000000000000"
ddb.geometry.cylinders="1"
ddb.geometry.heads="16"
ddb.geometry.sectors="63"
ddb.comment=""
"""


def sectors(data):
    return (len(data) + SECTOR - 1) // SECTOR


def by_sector_of_disk_backwards(item):
    return -item[0]


def shuffled(item):
    return zlib.crc32(bytes([item[0]]))


def fat_record(lba, data, level=0):
    """As long as a record may be: blocks that hold nothing, one behind the other."""
    packed = zlib.compress(data, level)
    packed = packed[:2] + b"\0\0\0\xff\xff" * ((2 * CLUSTER - len(packed)) // 5) + packed[2:]
    record = struct.pack("<QI", lba, len(packed)) + packed
    return record + bytes(-len(record) % SECTOR)


def noisy_padding(lba, data, level=6):
    packed = zlib.compress(data, level)
    record = struct.pack("<QI", lba, len(packed)) + packed
    return record + b"\xa5" * (-len(record) % SECTOR)


def tail_in_record(lba, data, level=6):
    """Bytes behind the stream that its length counts as well."""
    packed = zlib.compress(data, level) + b"tail"
    record = struct.pack("<QI", lba, len(packed)) + packed
    return record + bytes(-len(record) % SECTOR)


streams = {
    # Directory at the end.
    "vmware-export": (DATA, lambda d: craft.stream_vmdk(
        d, text=VMWARE.format(sectors=sectors(d)).encode(), text_sectors=1, level=1)),
    "vmware-empty-tables": (TABLES, craft.stream_vmdk),
    "virtualbox": (RAGGED, lambda d: craft.stream_vmdk(
        d, text=VIRTUALBOX.format(sectors=sectors(d)).encode(), text_sectors=2,
        capacity=4 * 128)),
    "markers-of-type-4": (DATA, lambda d: craft.stream_vmdk(d, kind4=True)),
    "capacity-in-footer": (DATA, lambda d: craft.stream_vmdk(d, header_capacity=0)),
    "second-directory-all-ones": (DATA, lambda d: craft.stream_vmdk(d, flags=0x30003, rgd=AT_END)),
    "second-directory-the-first": (DATA, lambda d: craft.stream_vmdk(d, flags=0x30003, rgd="gd")),
    "zero-grain-flag": (DATA, lambda d: craft.stream_vmdk(d, flags=0x30005)),
    "version-1": (DATA, lambda d: craft.stream_vmdk(d, version=1)),
    "version-2": (DATA, lambda d: craft.stream_vmdk(d, version=2)),
    "unknown-compatible-flag": (DATA, lambda d: craft.stream_vmdk(d, flags=0x38001)),
    "no-end-marker": (DATA, lambda d: craft.stream_vmdk(d, eos=False)),
    "tar-padding": (DATA, lambda d: craft.stream_vmdk(d, noise=bytes(10240))),
    "text-behind": (DATA, lambda d: craft.stream_vmdk(
        d, noise=VMWARE.encode().ljust(2 * SECTOR, b"\n"))),
    "text-behind-odd": (DATA, lambda d: craft.stream_vmdk(d, noise=VMWARE.encode())),
    "much-behind": (DATA, lambda d: craft.stream_vmdk(d, noise=b"x" * 126 * SECTOR)),
    "overhead-of-16-mib": (DATA, lambda d: craft.stream_vmdk(d, overhead=32768)),
    "overhead-of-two-sectors": (DATA, lambda d: craft.stream_vmdk(d, text_sectors=1, overhead=2)),
    "renamed": (DATA, lambda d: craft.stream_vmdk(d, text=craft.descriptor(
        "streamOptimized", [f'RDONLY {sectors(d)} SPARSE "/vmfs/volumes/gone/old name.vmdk"']))),
    "no-grains": (bytes(MIB), craft.stream_vmdk),
    # Directory in front.
    "converter": (DATA, lambda d: craft.front_vmdk(d, tail=craft.marker(0, 0), level=9)),
    "converter-out-of-order": (DATA, lambda d: craft.front_vmdk(
        d, order=shuffled, tail=craft.marker(0, 0))),
    "backwards": (DATA, lambda d: craft.front_vmdk(d, order=by_sector_of_disk_backwards)),
    "old-qemu": (RAGGED, lambda d: craft.front_vmdk(d, version=1, last=0)),
    "length-alone": (RAGGED, lambda d: craft.front_vmdk(d, flags=0x10001,
                                                        record=craft.plain_record)),
    "flag-of-compression-missing": (RAGGED, lambda d: craft.front_vmdk(
        d, flags=1, record=craft.plain_record)),
    "last-record-unpadded": (RAGGED, lambda d: craft.front_vmdk(
        d, cut=-(12 + len(zlib.compress(d[3 * CLUSTER:].ljust(CLUSTER, b"\0"), 6))) % SECTOR)),
    # Records.
    "records-of-twice-a-grain": (DATA, lambda d: craft.stream_vmdk(d, record=fat_record)),
    "noise-in-padding": (DATA, lambda d: craft.stream_vmdk(d, record=noisy_padding)),
    "bytes-behind-the-data": (DATA, lambda d: craft.stream_vmdk(d, record=tail_in_record)),
    "stored": (DATA, lambda d: craft.stream_vmdk(d, level=0)),
}
for some in (5 * SECTOR, 5 * SECTOR + 1, 6 * SECTOR, CLUSTER - 1, CLUSTER):
    streams[f"last-grain-of-{some}"] = RAGGED, lambda d, n=some: craft.stream_vmdk(d, last=n)


def check_stream(self, data, make):
    with open("image.vmdk", "wb") as f:
        f.write(make(data))
    with open("right.raw", "wb") as f:
        f.write(data)
    self.expect_good("image.vmdk", "vmdk", "right.raw")
    self.salvage_all("image.vmdk", "vmdk", "right.raw")


class Streams(Harm):
    pass


# ---- texts -----------------------------------------------------------------------------------

LINES = ['RW 256 FLAT "disk-f001.vmdk" 0', 'RW 40 FLAT "disk-f002.vmdk" 0']
TEXT = craft.descriptor("twoGbMaxExtentFlat", LINES)


def edited(*pairs):
    text = TEXT
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


texts = {
    "as-it-is": TEXT,
    "dos-lines": TEXT.replace(b"\n", b"\r\n"),
    "no-last-line-end": TEXT.rstrip(b"\n"),
    "blanks-and-tabs": edited((b"\nCID=", b"\n \tCID = \t"), (b'createType="', b'createType\t=  "'),
                              (b"RW 256 FLAT", b"  RW\t256   FLAT")),
    "blanks-behind": TEXT.replace(b"\n", b" \t\n"),
    "nuls-behind": TEXT.ljust(10240, b"\0"),
    "other-case-of-keys": edited((b"CID=1", b"cid=1"), (b"createType", b"CREATETYPE")),
    "other-case-of-the-type": edited((b"twoGbMaxExtentFlat", b"TWOGBMAXEXTENTFLAT")),
    "older-name-of-the-type": edited((b"twoGbMaxExtentFlat", b"2GbMaxExtentFlat")),
    "other-case": edited((b"disk-f001.vmdk", b"DISK-F001.VMDK")),
    "short-cid": edited((b"CID=12345678", b"CID=7b")),
    "virtualbox": TEXT.replace(b"# The Disk Data Base", b"# The disk Data Base ")
    + VIRTUALBOX[VIRTUALBOX.index("ddb.uuid"):].encode(),
    "vmware-uuid": TEXT + VMWARE[VMWARE.index("ddb.longContentID"):].encode(),
    "read-only-line": edited((b"RW 40", b"RDONLY 40")),
    "no-blank-line-behind-the-head": edited((b'"\n\n# Extent', b'"\n# Extent')),
    "unknown-keys": edited((b"CID=1", b'isNativeSnapshot="no"\nnoSuchKey=1\nCID=1')),
    "key-twice": edited((b"parentCID", b"CID=00000000\nparentCID")),
}


def check_text(self, text):
    for name, data in (("disk.vmdk", text), ("disk-f001.vmdk", DATA[:256 * SECTOR]),
                       ("disk-f002.vmdk", DATA[256 * SECTOR:296 * SECTOR]),
                       ("right.raw", DATA[:296 * SECTOR])):
        with open(name, "wb") as f:
            f.write(data)
    self.expect_good("disk.vmdk", "vmdk", "right.raw")


class Texts(Harm):
    def test_flat_longer(self):
        """A copy that was rounded up."""
        with open("disk-flat.vmdk", "wb") as f:
            f.write(DATA + b"more" * 1000)
        with open("disk.vmdk", "wb") as f:
            f.write(craft.descriptor("vmfs", [f'RW {sectors(DATA)} VMFS "disk-flat.vmdk"']))
        with open("right.raw", "wb") as f:
            f.write(DATA)
        self.expect_good("disk.vmdk", "vmdk", "right.raw")

    def test_pieces_of_2047_mib(self):
        """VMware's size, which is no multiple of what a table covers; the last one is odd."""
        piece, last = 4192256, 777
        for name, size, grains in (("s001", piece, {0: DATA[:CLUSTER]}),
                                   ("s002", last, {6: DATA[CLUSTER:2 * CLUSTER]})):
            with open(f"disk-{name}.vmdk", "wb") as f:
                f.write(pieces(size, grains))
        with open("disk.vmdk", "wb") as f:
            f.write(craft.descriptor("twoGbMaxExtentSparse", [
                f'RW {piece} SPARSE "disk-s001.vmdk"', f'RW {last} SPARSE "disk-s002.vmdk"']))
        with open("right.raw", "wb") as f:
            f.write(DATA[:CLUSTER])
            f.seek(piece * SECTOR + 6 * CLUSTER)
            f.write(DATA[CLUSTER:2 * CLUSTER])
            f.truncate((piece + last) * SECTOR)
        platter("compare", "-F", "raw", "disk.vmdk", "right.raw")


def pieces(capacity, grains):
    """One extent of a set: no descriptor, all of its tables."""
    tables = (capacity + 65535) // 65536
    gd_sectors = (tables * 4 + SECTOR - 1) // SECTOR
    overhead = (1 + gd_sectors + 4 * tables + 127) // 128 * 128
    out = bytearray(craft.vmdk_header(capacity, 1, 1, descriptor=0, overhead=overhead))
    out += b"".join(struct.pack("<I", 1 + gd_sectors + 4 * i) for i in range(tables))
    out += bytes(overhead * SECTOR - len(out))
    for number, data in grains.items():
        craft.put_le(out, (1 + gd_sectors) * SECTOR + 4 * number, len(out) // SECTOR)
        out += data
    return out


# ---- grains as large as they may be --------------------------------------------------------------

class LargeGrains(Harm):
    def grains(self, grain, last, wordy=False):
        """Two grains of so many sectors, and `last` bytes of a third, whose record can be `wordy`:
        longer than the grain."""
        size = 2 * grain * SECTOR + last
        data = random.Random(8).randbytes(4096) * (size // 4096) + bytes(size % 4096)
        capacity = size // SECTOR
        text = craft.descriptor("streamOptimized", [f'RW {capacity} SPARSE "x.vmdk"'])
        out = bytearray(craft.vmdk_header(capacity, 21, 0x30001, version=3, grain=grain, packed=1)
                        + text.ljust(20 * SECTOR, b"\0"))
        out += struct.pack("<I", 22).ljust(SECTOR, b"\0") + bytes(106 * SECTOR)
        for number in range(3):
            packed, plain = zlib.compressobj(1), data[number * grain * SECTOR:][:grain * SECTOR]
            step = 16 if wordy and number == 2 else len(plain)
            stream = b"".join(packed.compress(plain[at:at + step]) + packed.flush(zlib.Z_FULL_FLUSH)
                              for at in range(0, len(plain), step)) + packed.flush()
            if step < len(plain):
                self.assertGreater(len(stream), 1.1 * grain * SECTOR)
            craft.put_le(out, 22 * SECTOR + 4 * number, len(out) // SECTOR)
            out += struct.pack("<QI", number * grain, len(stream)) + stream
            out += bytes(-len(out) % SECTOR)
        for name, content in (("disk.vmdk", out), ("right.raw", data)):
            with open(name, "wb") as f:
                f.write(content)
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        platter("digest", "disk.vmdk")

    def test_whole(self):
        self.grains(32768, 16 * MIB)

    def test_last_is_not_whole(self):
        self.grains(32768, 16 * MIB - 3 * SECTOR)

    def test_last_record_is_longer_than_its_grain(self):
        self.grains(2048, MIB - SECTOR, wordy=True)


# ---- what is compressed as a whole -------------------------------------------------------------

class Packed(Harm):
    def check(self, packed):
        for name, data in (("disk.vmdk.gz", packed), ("right.raw", DATA)):
            with open(name, "wb") as f:
                f.write(data)
        self.expect_good("disk.vmdk.gz", "vmdk", "right.raw")

    def test_gzip(self):
        self.check(gzip.compress(craft.stream_vmdk(DATA)))

    def test_gzip_with_a_name(self):
        named = io.BytesIO()
        with gzip.GzipFile("disk.vmdk", "wb", fileobj=named) as f:
            f.write(craft.stream_vmdk(DATA))
        self.check(named.getvalue())


# ---- what is not taken for an image ------------------------------------------------------------

class Refused(Harm):
    def refused(self, name, data, *words):
        with open(name, "wb") as f:
            f.write(data)
        done = platter("convert", "-O", "raw", name, "target", code=1)
        for word in (name, *words):
            self.assertRegex(done.stderr, word)
        self.assertEqual(self.listing(), [name])

    def test_tar(self):
        with open("disk.vmdk", "wb") as f:
            f.write(craft.stream_vmdk(DATA))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as f:
            f.add("disk.vmdk")
        os.unlink("disk.vmdk")
        self.refused("vm.ova", archive.getvalue(), "tar|OVA")

    def test_renamed_extent(self):
        """Its name is the only one there is: it is told."""
        self.refused("disk.vmdk", craft.descriptor("vmfs", ['RW 8 VMFS "old-flat.vmdk"']),
                     "old-flat.vmdk")

    def test_too_much_behind(self):
        """The footer is looked for in the last 128 sectors."""
        self.refused("disk.vmdk", craft.stream_vmdk(DATA, noise=b"x" * 300 * KIB), "footer",
                     "salvage")


for case, (disk, recipe) in streams.items():
    add_case(Streams, case, check_stream, disk, recipe)
for case, words in texts.items():
    add_case(Texts, case, check_text, words)

main()
