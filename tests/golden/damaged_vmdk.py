# SPDX-License-Identifier: MIT
"""VMDK images broken in one place each. The lines of vmdk.md section 15 are shown by (Errors, where
no class is named):

    file size               cut-in-header, Small
    version                 version-0, version-4
    capacity                capacity-*; Sweep a_kilobyte_that_claims_8_eib
    grainSize               grain-size-*
    numGTEsPerGT            entries-*; its product with grainSize is bounded by both bounds
    GD entries              Sweep fuzzed_header
    GD, RGD                 directory-*, second-directory-*, both-directories-gone
    GT                      grain-directory-entry-*, table-in-both-past-end
    overHead                overhead-past-end
    descriptor              descriptor-past-end, descriptor-huge
    gdOffset                directory-at-0, footer-directory-*, footer-points-at-end-again; Flips
    rgdOffset               second-directory-past-end; quirks_vmdk.py second-directory-*
    compressed record       packed-size-*, packed-past-end, front-cut-by-half
    inflate output          packed-inflates-long
    COWD, seSparse          esx.py
    extents                 Flat sectors_*, too_many_extents; descriptor-without-extent
    descriptor text         Texts
    chain depth             Chains
    overflow                directory-overflows; Flat offset_overflows, sectors_overflow; Sweep
"""
import json
import os
import random
import shutil
import struct
import zlib

import craft
from craft import AT_END, SECTOR, le, put_le, put_vmdk, vmdk_field
from harm import HOLE, Bases, Damaged, Harm, cut, measured
from peers import KIB, MIB, add_case, main, platter, qemu_img, sha256, text_like

SIZE = MIB + 512
GRAIN = 64 * KIB


def contents():
    """Grains of text with holes between; a ragged last one. Every byte is one that matters."""
    rng = random.Random(6)
    return b"".join(bytes(n) if grain in (3, 9) else text_like(rng, n)
                    for grain in range(17) for n in [min(GRAIN, SIZE - grain * GRAIN)])


bases = Bases("vmdk")


def make_bases():
    """By the peer, and by hand where it does not make them."""
    bases.write("raw", contents())
    for name, kind in (("sparse", "monolithicSparse"), ("front", "streamOptimized")):
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}",
                 bases.path("raw"), bases.path(name))
    bases.write("stream", craft.stream_vmdk(contents()))


make_bases()


def gd_at(image):
    """Where the grain directory stands; the footer tells where the header does not."""
    gd = vmdk_field(image, "gdOffset")
    return SECTOR * (le(image, len(image) - 1024 + 56, 8) if gd == AT_END else gd)


def gte_at(image, grain):
    """Where the entry of a grain stands."""
    return SECTOR * le(image, gd_at(image)) + 4 * grain


def record_at(image, grain):
    return SECTOR * le(image, gte_at(image, grain))


def set_header(name, value):
    return lambda image: put_vmdk(image, name, value)


def set_footer(name, value):
    return lambda image: put_vmdk(image, name, value, len(image) - 1024)


def set_gde(value):
    return lambda image: put_le(image, gd_at(image), value)


def set_both(entry, value):
    """An entry of both directories, to two tables in a row."""
    def harm(image):
        for table, field in enumerate(("gdOffset", "rgdOffset")):
            put_le(image, SECTOR * vmdk_field(image, field) + 4 * entry, value + 4 * table)
    return harm


def set_gte(grain, value):
    return lambda image: put_le(image, gte_at(image, grain), value)


def set_second(grain, value):
    """The entry of a grain, and its second copy."""
    def harm(image):
        second = SECTOR * le(image, SECTOR * vmdk_field(image, "rgdOffset"))
        put_le(image, gte_at(image, grain), value)
        put_le(image, second + 4 * grain, value)
    return harm


def set_record(grain, at, value, length):
    return lambda image: put_le(image, record_at(image, grain) + at, value, length)


def scramble(grain):
    def harm(image):
        at = record_at(image, grain) + 40
        image[at:at + 60] = random.Random(grain).randbytes(60)
    return harm


def break_sum(image):
    """The last byte of the Adler-32 behind a packed grain."""
    at = record_at(image, 2)
    image[at + 12 + le(image, at + 8) - 1] ^= 1


def pack_short(image):
    """A record that inflates to half a grain."""
    at = record_at(image, 2)
    record = craft.grain_record(2 * 128, bytes(GRAIN // 2))
    image[at:at + len(record)] = record


def pack_last_short(image):
    """The record of the last grain, of which the disk has a part: it inflates to less than that."""
    at = record_at(image, 16)
    record = craft.grain_record(16 * 128, bytes(100))
    image[at:at + len(record)] = record


def pack_long(image):
    """A record that inflates to a grain and a sector."""
    at = record_at(image, 2)
    record = craft.grain_record(2 * 128, bytes(GRAIN + 512))
    image[at:at + len(record)] = record


def text(old, new):
    """Replaces text of the descriptor, same length."""
    def harm(image):
        at = image.index(old, 0, 65536)
        image[at:at + len(old)] = new.ljust(len(old))
    return harm


FAR = 0xFFFFFF00

errors = {
    "version-4": ("sparse", set_header("version", 4), "version"),
    "version-0": ("sparse", set_header("version", 0), "version"),
    "unfinished": ("sparse", lambda i: b"kdmv" + i[4:], "incomplete|unfinished|not finished|kdmv"),
    "unknown-incompatible-flag": ("sparse", set_header("flags", 0x100003), "flag"),
    "newline-bytes": ("sparse", set_header("singleEndLineChar", 13), "newline|text|line"),
    "capacity-0": ("sparse", set_header("capacity", 0), "capacity|descriptor|extent"),
    "capacity-overflows": ("sparse", set_header("capacity", (1 << 64) - 1), "capacity"),
    "capacity-of-2-to-the-55": ("sparse", set_header("capacity", 1 << 55), "capacity"),
    "capacity-below-descriptor": ("sparse", set_header("capacity", 2048), "capacity|sectors"),
    "capacity-over-directory": ("stream", set_footer("capacity", 1 << 40), "footer|capacity"),
    "grain-size-0": ("sparse", set_header("grainSize", 0), "grainSize|grain size"),
    "grain-size-odd": ("sparse", set_header("grainSize", 100), "grainSize|grain size"),
    "grain-size-of-32-mib": ("sparse", set_header("grainSize", 65536), "grainSize|grain size"),
    "grain-size-huge": ("sparse", set_header("grainSize", 1 << 63), "grainSize|grain size"),
    "entries-0": ("sparse", set_header("numGTEsPerGT", 0), "numGTEsPerGT|grain table"),
    "entries-64": ("sparse", set_header("numGTEsPerGT", 64), "numGTEsPerGT|grain table"),
    "entries-500": ("sparse", set_header("numGTEsPerGT", 500), "numGTEsPerGT|grain table"),
    "entries-huge": ("sparse", set_header("numGTEsPerGT", 0xFFFFFFFF), "grain tables"),
    "descriptor-without-extent": ("sparse", text(b"RW 2049 SPARSE", b"#"), "extent"),
    "codec-2": ("front", set_header("compressAlgorithm", 2), "compress"),
    "markers-flag-without-codec": ("sparse", set_header("flags", 0x20003), "compress"),
    "packed-flag-without-codec": ("front", set_header("compressAlgorithm", 0), "compress"),
    "half-gone": ("stream", cut(lambda i: len(i) // 2), "footer|cut|end"),
    "sparse-cut-in-tables": ("sparse", cut(22 * SECTOR), "end|truncated|cut|short"),
    "cut-in-header": ("sparse", cut(300), "header|truncated|short"),
}

# What is lost is elsewhere: in the second tables, or in the records' own heads.
found = {
    "grain-directory-entry-past-end": ("sparse", set_gde(FAR), "directory"),
    "grain-directory-zeroed": ("sparse", set_gde(0), "directory"),
    "grain-directory-zeroed-in-front": ("front", set_gde(0), "directory"),
    "grain-directory-zeroed-at-end": ("stream", set_gde(0), "directory"),
    "grain-directory-entry-in-header": ("sparse", set_gde(1), "directory"),
    "grain-directory-entry-past-end-in-front": ("front", set_gde(FAR), "directory"),
    "grain-directory-entry-past-end-at-end": ("stream", set_gde(FAR), "directory"),
    "grain-directory-entry-in-padding-at-end": ("stream", set_gde(64), "directory"),
    "grain-past-end": ("sparse", set_gte(2, FAR), "grain"),
    "grain-in-header": ("sparse", set_gte(2, 2), "grain"),
    "grain-in-tables": ("sparse", set_gte(2, 27), "grain"),
    "grain-in-directory": ("sparse", set_gte(2, 26), "grain"),
    "packed-past-end": ("front", set_gte(2, FAR), "grain"),
    "packed-in-tables": ("front", set_gte(2, 25), "grain"),
    "packed-in-descriptor": ("stream", set_gte(2, 4), "grain"),
    "packed-other-grain": ("stream", lambda i: set_gte(2, le(i, gte_at(i, 5)))(i), "record"),
    "footer-magic": ("stream", lambda i: put_le(i, len(i) - 1024, 0), "footer"),
    "footer-marker": ("stream", lambda i: put_le(i, len(i) - 1536 + 12, 1), "footer|marker"),
    "footer-gone": ("stream", cut(lambda i: len(i) - 1536), "footer|cut|end"),
    "footer-other-grain-size": ("stream", set_footer("grainSize", 64), "footer|grainSize"),
    "footer-directory-0": ("stream", set_footer("gdOffset", 0), "gdOffset|grain directory"),
    "footer-directory-past-end": ("stream", set_footer("gdOffset", 1 << 40),
                                  "gdOffset|grain directory"),
    "footer-points-at-end-again": ("stream", set_footer("gdOffset", AT_END), "grain directory"),
    "footer-directory-in-padding": ("stream", set_footer("gdOffset", 15), "in the descriptor"),
    "footer-directory-in-zeros": ("stream", set_footer("gdOffset", 64), "gdOffset"),
    "directory-at-0": ("sparse", set_header("gdOffset", 0), "gdOffset|grain directory"),
    "directory-past-end": ("sparse", set_header("gdOffset", 1 << 40), "gdOffset|grain directory"),
    "directory-overflows": ("sparse", set_header("gdOffset", 1 << 62),
                            "gdOffset|grain directory"),
    "directory-in-descriptor": ("sparse", set_header("gdOffset", 1), "in the descriptor"),
    "directory-in-padding": ("sparse", set_header("gdOffset", 15), "in the descriptor"),
    "directory-past-end-in-front": ("front", set_header("gdOffset", 1 << 40), "grain directory"),
    "second-directory-past-end": ("sparse", set_header("rgdOffset", 1 << 40),
                                  "redundant grain directory"),
    "second-directory-in-descriptor": ("sparse", set_header("rgdOffset", 3), "in the descriptor"),
    "overhead-past-end": ("sparse", set_header("overHead", 1 << 40), "overHead|end"),
    "header-gone-at-end": ("stream", lambda i: bytes(SECTOR) + i[SECTOR:], "KDMV"),
    "version-4-at-end": ("stream", set_header("version", 4), "version"),
}

# The same, but for what no trace is left of.
doubted = {
    "directory-gone": ("stream", cut(lambda i: len(i) - 3072), "footer|cut|end"),
    "marker-of-directory-gone": ("stream", lambda i: put_le(i, gd_at(i) - 500, 7), "gdOffset"),
    "both-directories-gone": ("front", lambda i: (put_vmdk(i, "gdOffset", FAR),
                                                  put_vmdk(i, "rgdOffset", FAR)) and None,
                              "grain directory"),
    "descriptor-of-noise": ("sparse", lambda i: i[:512] + random.Random(1).randbytes(10240)
                            + i[10752:], "descriptor|line"),
    "descriptor-without-cid": ("sparse", text(b"\nCID=", b"\nXID="), "CID"),
    "descriptor-past-end": ("sparse", set_header("descriptorOffset", 1 << 40), "descriptor"),
    "descriptor-huge": ("sparse", set_header("descriptorSize", 1 << 50), "descriptor"),
}

holes = {
    "sparse-cut-by-a-sector": ("sparse", cut(lambda i: record_at(i, 16)), "grain|end"),
    "sparse-cut-by-half": ("sparse", cut(lambda i: len(i) // 2), "grain|end"),
    "table-in-both-past-end": ("sparse", set_both(0, FAR), "directory"),
    "grain-in-both-past-end": ("sparse", set_second(2, FAR), "grain"),
    "packed-bad-lba": ("stream", set_record(2, 0, 12345, 8), "record"),
    "packed-size-0": ("stream", set_record(2, 8, 0, 4), "record"),
    "packed-size-huge": ("stream", set_record(2, 8, 0xFFFFFFF0, 4), "record"),
    "packed-size-short": ("stream", set_record(2, 8, 100, 4), "grain"),
    "packed-does-not-inflate": ("stream", scramble(2), "grain"),
    "packed-last-does-not-inflate": ("front", scramble(16), "grain"),
    "packed-bad-sum": ("stream", break_sum, "grain"),
    "packed-bad-sum-in-front": ("front", break_sum, "grain"),
    "packed-inflates-short": ("stream", pack_short, "grain"),
    "packed-last-inflates-short": ("stream", pack_last_short, "grain"),
    "packed-inflates-long": ("stream", pack_long, "grain"),
    "front-cut-by-half": ("front", cut(lambda i: len(i) // 2 // 512 * 512), "grain|end"),
}

good = {
    "second-directory-gone": ("sparse",
                              lambda i: put_le(i, SECTOR * vmdk_field(i, "rgdOffset"), 0)),
    "unclean-shutdown": ("sparse", set_header("uncleanShutdown", 1)),
    "unknown-compatible-flag": ("sparse", set_header("flags", 0x103)),
    "no-end-of-stream": ("stream", cut(lambda i: len(i) - 512)),
    "other-end-of-stream": ("stream", lambda i: put_le(i, len(i) - 500, 7)),
    "trailing-sectors": ("sparse", lambda i: i + bytes(5120)),
    "padding-of-a-record": ("stream", lambda i: fill_padding(i, 2)),
}


def fill_padding(image, grain):
    at = record_at(image, grain)
    end = at + 12 + le(image, at + 8)
    image[end:end + -end % SECTOR] = b"x" * (-end % SECTOR)


class Errors(Damaged):
    bases = bases

    def is_doubted(self, base, harm, *words):
        """All is found, but nothing says that it is all."""
        image = bases.damaged(base, harm)
        self.expect_error(image, "vmdk", bases.path("raw"), *words)
        self.salvage_all(image, "vmdk", bases.path("raw"), 4, "lost|missing")

    def is_hole_of(self, base, harm, *words):
        """Where a whole table is gone nothing is left."""
        self.is_hole(base, harm, *words, some="directory" not in words[0])


class Cuts(Damaged):
    bases = bases

    def test_stream_at_every_sector(self):
        """Of a stream of a few grains: an error each time, but for the last sector, whose place
        tells that nothing is missing."""
        content = contents()[:3 * GRAIN]
        stream = craft.stream_vmdk(content)
        with open("whole.raw", "wb") as f:
            f.write(content)
        with open("cut.vmdk", "wb") as f:
            f.write(stream)
        self.expect_good("cut.vmdk", "vmdk", "whole.raw")
        for end in [*range(0, len(stream), SECTOR), *range(1, len(stream), 7919), len(stream) - 1]:
            with open("cut.vmdk", "wb") as f:
                f.write(stream[:end])
            with self.subTest(end=end):
                failed = self.judge("cut.vmdk", "vmdk", "whole.raw")
                self.assertTrue(failed or end >= len(stream) - SECTOR)

    def test_front(self):
        self.assertGreater(self.cuts("front", lambda n: range(0, n, 20 * SECTOR)), 20)

    def test_stream(self):
        self.assertGreater(self.cuts("stream", lambda n: range(0, n, 21 * SECTOR)), 20)

    def test_sparse(self):
        self.assertGreater(self.cuts("sparse", lambda n: range(0, n, 55 * SECTOR)), 20)


class Flips(Damaged):
    """Each bit of what leads to a table of a stream."""

    bases = bases

    def flips(self, base, at, bits):
        image = bases.read(base)
        for bit in range(bits):
            broken = bases.damaged(base, lambda i: put_le(i, at(i) + bit // 8,
                                                          i[at(i) + bit // 8] ^ 1 << bit % 8, 1))
            with self.subTest(bit=bit):
                self.assertTrue(self.judge(broken, "vmdk", bases.path("raw")))
                self.salvage_all(broken, "vmdk", bases.path("raw"))
        self.assertEqual(image, bases.read(base))

    def test_footer(self):
        self.flips("stream", lambda i: len(i) - 1024 + 56, 64)

    def test_directory_at_end(self):
        self.flips("stream", gd_at, 32)


    def test_table_that_nothing_names(self):
        """Its entry is 0, and its marker is none: the records are what is left."""
        def harm(image):
            put_le(image, SECTOR * le(image, gd_at(image)) - SECTOR + 12, 99)
            put_le(image, gd_at(image), 0)
        broken = bases.damaged("stream", harm)
        self.assertTrue(self.judge(broken, "vmdk", bases.path("raw")))
        self.salvage(broken, "vmdk", bases.path("raw"))

    def test_entries_zeroed(self):
        """A table at the end that has lost a grain, which stands between those it has."""
        for grain in range(17):
            if le(bases.read("stream"), gte_at(bases.read("stream"), grain)):
                broken = bases.damaged("stream", set_gte(grain, 0))
                with self.subTest(grain=grain):
                    self.assertTrue(self.judge(broken, "vmdk", bases.path("raw")))
                    self.salvage_all(broken, "vmdk", bases.path("raw"))

    def test_entry_zeroed_in_the_first_of_two_tables(self):
        """Reads as what it says; a salvage asks the second table, too."""
        broken = bases.damaged("sparse", set_gte(2, 0))
        self.salvage_all(broken, "vmdk", bases.path("raw"))

    def test_entries(self):
        for grain in (0, 5, 16):
            self.flips("stream", lambda i, g=grain: gte_at(i, g), 32)


class Noise(Damaged):
    """Noise anywhere: reading is an error or right, and a salvage says what it has not."""

    bases = bases

    def noise(self, base, seed, length):
        def harm(image):
            rng = random.Random(seed)
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(SECTOR, len(image) - length)
                image[at:at + length] = rng.randbytes(length)
        return bases.damaged(base, harm)

    def rescued(self, image):
        """Whatever a salvage brings is right, a hole, or in doubt."""
        done = platter("convert", "--salvage", "-f", "vmdk", "-O", "raw", image, "rescued",
                       code={0, 4})
        with open("rescued", "rb") as f:
            got = f.read()
        right = bases.read("raw")
        doubt = "lost" in done.stderr
        self.assertEqual(len(got), len(right), done.stderr)
        for at, length in [tuple(map(int, h)) for h in HOLE.findall(done.stderr)]:
            right[at:at + length] = bytes(length)
        for at in range(0, len(got), GRAIN):
            was, now = right[at:at + GRAIN], got[at:at + GRAIN]
            self.assertTrue(now == was or doubt and not any(now), f"at {at}: {done.stderr}")

    def test_noise(self):
        for base in ("stream", "front"):
            for seed in range(12):
                for length in (1, 40, 5000):
                    image = self.noise(base, seed, length)
                    with self.subTest(base=base, seed=seed, length=length):
                        self.judge(image, "vmdk", bases.path("raw"))
                        self.rescued(image)

    def test_cut(self):
        """What is in front of the cut is there."""
        for base in ("stream", "front"):
            size = len(bases.read(base))
            for end in range(200 * SECTOR, size, size // 12):
                image = bases.damaged(base, cut(end))
                with self.subTest(base=base, end=end):
                    self.rescued(image)

    def test_everything_but_the_grains(self):
        """Neither header, nor descriptor, nor tables, nor footer."""
        def harm(image):
            image[SECTOR:128 * SECTOR] = random.Random(1).randbytes(127 * SECTOR)
            image[-9 * SECTOR:-2 * SECTOR] = random.Random(2).randbytes(7 * SECTOR)
        image = bases.damaged("stream", harm)
        self.salvage_all(image, "vmdk", bases.path("raw"), 4, "lost", "parent")

    def without_end(self, text, behind=b""):
        """A stream that has its capacity in the footer, which it has lost."""
        stream = craft.stream_vmdk(contents()[:3 * GRAIN], header_capacity=0, text=text)
        with open("broken.vmdk", "wb") as f:
            f.write(stream[:len(stream) - 3 * SECTOR] + behind)

    def test_capacity_that_cannot_be(self):
        """What the descriptor says is bounded as what the header says."""
        for sectors in (1 << 50, (1 << 54) - 1):
            self.without_end(craft.descriptor("streamOptimized", [f'RDONLY {sectors} SPARSE "x"']))
            done = platter("map", "--salvage", "broken.vmdk", code=1)
            self.assertRegex(done.stderr, f"capacity.*{sectors}")

    def test_false_record(self):
        """What looks like a record of a grain that no disk has keeps nobody from the others."""
        self.without_end(b"x", struct.pack("<QI", 1 << 45, 100) + b"\x78\x9c" + bytes(498))
        with open("right.raw", "wb") as f:
            f.write(contents()[:3 * GRAIN])
        self.salvage_all("broken.vmdk", "vmdk", "right.raw", 4, "descriptor")


class Bombs(Harm):
    def test_records_without_end(self):
        """Each sector looks like a record of a large grain that is inflated for long."""
        text = craft.descriptor("streamOptimized", ['RDONLY 2097152 SPARSE "x.vmdk"'])
        record = (struct.pack("<QI", 0, 32 * MIB) + zlib.compress(bytes(MIB), 9))[:SECTOR]
        with open("broken.vmdk", "wb") as f:
            f.write(craft.vmdk_header(2097152, AT_END, 0x30001, version=3, grain=32768, packed=1)
                    + text.ljust(127 * SECTOR, b"\0") + record * 8192)
        code, said = measured("map", "--salvage", "broken.vmdk")
        self.assertEqual(code, 1)
        self.assertRegex(said, "broken.vmdk.*given up")


class Flat(Harm):
    """A descriptor of text and its extent."""

    def flat(self, lines, size=SIZE, extent=None, kind="monolithicFlat"):
        with open("disk-flat.vmdk", "wb") as f:
            f.write(bases.read("raw") if extent is None else extent)
        with open("disk.vmdk", "wb") as f:
            f.write(craft.descriptor(kind, lines))

    def refused(self, *words, **how):
        self.flat(**how)
        self.expect_error("disk.vmdk", "vmdk", bases.path("raw"), *words)

    def test_good(self):
        self.flat(['RW 2049 FLAT "disk-flat.vmdk" 0'])
        self.expect_good("disk.vmdk", "vmdk", bases.path("raw"))

    def test_extent_short(self):
        self.refused("disk-flat.vmdk", lines=['RW 2049 FLAT "disk-flat.vmdk" 0'],
                     extent=contents()[:MIB])

    def test_extent_missing(self):
        self.refused("gone-flat.vmdk", lines=['RW 2049 FLAT "gone-flat.vmdk" 0'])

    def test_offset_past_end(self):
        self.refused("disk-flat.vmdk", lines=['RW 2049 FLAT "disk-flat.vmdk" 1000000'])

    def test_offset_overflows(self):
        self.refused("extent|offset", lines=['RW 2049 FLAT "disk-flat.vmdk" 18446744073709551615'])

    def test_sectors_0(self):
        self.refused("extent|sectors", lines=['RW 0 FLAT "disk-flat.vmdk" 0'] * 2)

    def test_sectors_overflow(self):
        self.refused("extent|sectors|size",
                     lines=['RW 36028797018963968 FLAT "disk-flat.vmdk" 0'] * 3)

    def test_sectors_add_up_to_2_to_the_64_bytes(self):
        for sectors in (1 << 54, (1 << 54) - 1):
            self.refused("extent", lines=[f"RW {sectors} ZERO"] * 2
                         + ['RW 2049 FLAT "disk-flat.vmdk" 0'])

    def test_pieces_of_one_file_take_its_space_once(self):
        self.flat([f'RW {n} FLAT "disk-flat.vmdk" {at}' for n, at in ((49, 0), (2000, 49))])
        self.expect_good("disk.vmdk", "vmdk", bases.path("raw"))
        info = json.loads(platter("info", "--output=json", "disk.vmdk").stdout)
        self.assertEqual(info["actual-size"], sum(512 * os.stat(name).st_blocks for name in (
            "disk.vmdk", "disk-flat.vmdk")))

    def test_unknown_type(self):
        self.refused("HOLOGRAM", lines=['RW 2049 HOLOGRAM "disk-flat.vmdk" 0'])

    def test_unknown_access(self):
        self.refused("extent|line", lines=['SOMETIMES 2049 FLAT "disk-flat.vmdk" 0'])

    def test_no_access(self):
        self.refused("NOACCESS|access", lines=['NOACCESS 2049 FLAT "disk-flat.vmdk" 0'])

    def test_quote_missing(self):
        self.refused("extent|line", lines=['RW 2049 FLAT "disk-flat.vmdk 0'])

    def test_too_many_extents(self):
        self.refused("extent", lines=['RW 1 FLAT "disk-flat.vmdk" 0'] * 5000)

    def test_names_itself(self):
        self.refused("itself|extent|end|past|short", lines=['RW 2049 FLAT "disk.vmdk" 0'])

    def test_leads_out_of_the_folder(self):
        for name in ("/etc/passwd", "../disk-flat.vmdk", "/dev/zero", "json:{}", "nbd:localhost:1"):
            self.refused("folder|plain|regular|device|found",
                         lines=[f'RW 1 FLAT "{name}" 0'], kind="monolithicFlat")

    def test_leads_to_a_fifo(self):
        os.mkfifo("pipe")
        self.refused("regular|pipe", lines=['RW 1 FLAT "pipe" 0'])

    def test_leads_out_by_a_link(self):
        os.symlink("/etc/passwd", "link")
        self.refused("folder", lines=['RW 1 FLAT "link" 0'])


class Shared(Harm):
    def test_two_extents_in_a_sparse_file(self):
        """Read, but not written: each would append to it as if it were alone."""
        with open("disk-s001.vmdk", "wb") as f:
            f.write(craft.sparse_vmdk(1024, {0: bytes(range(256)) * 256}))
        for line in ('RW 1024 SPARSE "disk-s001.vmdk"', 'RW 64 FLAT "disk-s001.vmdk" 128'):
            with open("disk.vmdk", "wb") as f:
                f.write(craft.descriptor("custom", ['RW 1024 SPARSE "disk-s001.vmdk"', line]))
            before = sha256("disk-s001.vmdk")
            done = platter("bench", "-q", "-w", "-c", "1", "disk.vmdk", code=1)
            self.assertRegex(done.stderr, "extents 0 and 1.*disk-s001.vmdk")
            self.assertEqual(sha256("disk-s001.vmdk"), before)
            platter("bench", "-q", "-c", "1", "disk.vmdk")


class Texts(Harm):
    """Descriptors that are no text, or too much of it."""

    def refused(self, text, *words):
        with open("disk.vmdk", "wb") as f:
            f.write(text)
        with open("disk-flat.vmdk", "wb") as f:
            f.write(bases.read("raw"))
        self.expect_error("disk.vmdk", "vmdk", bases.path("raw"), *words)

    def test_a_nul_in_the_middle(self):
        good = craft.descriptor("monolithicFlat", ['RW 2049 FLAT "disk-flat.vmdk" 0'])
        at = good.index(b"RW 2049")
        self.refused(good[:at] + b"\0" + good[at:], "NUL|zero byte|text|line")

    def test_more_than_1_mib(self):
        good = craft.descriptor("monolithicFlat", ['RW 2049 FLAT "disk-flat.vmdk" 0'])
        self.refused(good + b"# more\n" * 200000, "limit")

    def test_more_than_65536_lines(self):
        good = craft.descriptor("monolithicFlat", ['RW 2049 FLAT "disk-flat.vmdk" 0'])
        self.refused(good + b"\n" * 70000, "line|limit")


class Small(Harm):
    def test_few_bytes(self):
        for data in (b"", b"K", b"KDM", b"KDMV", b"COWD", b"KDMV" + bytes(507)):
            with open("small.vmdk", "wb") as f:
                f.write(data)
            self.assertTrue(self.judge("small.vmdk", "vmdk", bases.path("raw")))
            platter("info", "-f", "vmdk", "small.vmdk", code=1)
            platter("convert", "--salvage", "-f", "vmdk", "-O", "raw", "small.vmdk", "t", code=1)


class Chains(Harm):
    """Links from one to the next, written by hand."""

    def link(self, name, parent):
        text = craft.descriptor("monolithicSparse", ['RW 2049 SPARSE "x"']).replace(
            b"parentCID=ffffffff", b'parentCID=12345678\nparentFileNameHint="%s"' % parent.encode())
        image = bases.read("sparse")
        image[SECTOR:21 * SECTOR] = text.ljust(20 * SECTOR, b"\0")
        with open(name, "wb") as f:
            f.write(image)

    def refused(self, image, *words):
        done = platter("convert", "-O", "raw", image, "target", code=1)
        for word in words:
            self.assertRegex(done.stderr, word)

    def test_loops(self):
        self.link("a.vmdk", "b.vmdk")
        self.link("b.vmdk", "a.vmdk")
        self.refused("a.vmdk", "loop")
        self.link("a.vmdk", "a.vmdk")
        self.refused("a.vmdk", "loop")

    def test_longer_than_anybody_needs(self):
        for number in range(220):
            self.link(f"{number}.vmdk", f"{number + 1}.vmdk")
        self.refused("0.vmdk", r"longer than \d+")

    def test_parent_of_another_format(self):
        self.link("a.vmdk", "b.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", SIZE)
        self.refused("a.vmdk", "b.qcow2")

    def test_parent_missing(self):
        self.link("a.vmdk", "gone.vmdk")
        self.refused("a.vmdk", "gone.vmdk")


class Written(Harm):
    """What is damaged is not written: that would turn what is missing into something else."""

    def refused(self, image, *words):
        with open("new.raw", "wb") as f:
            f.write(b"new" * 1000)
        before = sha256(image)
        done = platter("convert", "-n", "-f", "raw", "-O", "vmdk", "new.raw", image, code=1)
        for word in (image, *words):
            self.assertRegex(done.stderr, word)
        self.assertEqual(sha256(image), before)

    def test_good(self):
        with open("new.raw", "wb") as f:
            f.write(contents()[GRAIN:] + contents()[:GRAIN])
        shutil.copy(bases.path("sparse"), "good.vmdk")
        platter("convert", "-n", "-f", "raw", "-O", "vmdk", "new.raw", "good.vmdk")
        self.expect_good("good.vmdk", "vmdk", "new.raw")

    def test_a_grain_is_cut_off(self):
        """The next one that is added must not stand where it was."""
        self.refused(bases.damaged("sparse", cut(lambda i: record_at(i, 15))), "grain 1[56]", "end")

    def test_a_table_is_cut_off(self):
        self.refused(bases.damaged("sparse", lambda i: set_both(0, len(i) // SECTOR)(i)),
                     "directories")

    def test_grains_in_two_units(self):
        """An extent that does not start with a grain of the disk is read, and written."""
        for name in ("a.vmdk", "b.vmdk"):
            shutil.copy(bases.path("sparse"), name)
        with open("disk.vmdk", "wb") as f:
            f.write(craft.descriptor("custom", [f'RW 2049 SPARSE "{c}.vmdk"' for c in "ab"]))
        with open("twice.raw", "wb") as f:
            f.write(contents() * 2)
        self.expect_good("disk.vmdk", "vmdk", "twice.raw")
        with open("other.raw", "wb") as f:
            f.write((contents() * 2)[::-1])
        platter("convert", "-n", "-f", "raw", "-O", "vmdk", "other.raw", "disk.vmdk")
        self.expect_good("disk.vmdk", "vmdk", "other.raw")
        for name in ("a.vmdk", "b.vmdk"):
            platter("check", name)


class Sweep(Damaged):
    bases = bases

    def header(self, base, name, footer=False):
        any_content = None
        if (base, name) == ("sparse", "grainSize"):
            # A table of smaller grains is as good as any other: nothing in the file contradicts.
            def any_content(got, right):
                return len(got) == len(right)
        harm = set_footer if footer else set_header
        self.sweep(base, lambda value: harm(name, value), craft.VMDK_HEADER[name][1],
                   lambda top: [top >> 9], any_content)

    def test_a_kilobyte_that_claims_8_eib(self):
        for capacity in (1 << 54, (1 << 55) - 1, 1 << 40):
            for grain in (1, 128, 32768):
                with open("tiny.vmdk", "wb") as f:
                    f.write(craft.vmdk_header(capacity, 2, 3, grain=grain, rgd=1, overhead=2)
                            .ljust(1024, b"\0"))
                self.assertTrue(self.judge("tiny.vmdk", "vmdk", bases.path("raw")))

    def test_fuzzed_header(self):
        """An old find: a directory of more entries than anybody has memory for."""
        with open("fuzzed.vmdk", "wb") as f:
            f.write(craft.vmdk_header(2233785398448881665, 1, 3, overhead=0).ljust(65536, b"\0"))
        self.assertTrue(self.judge("fuzzed.vmdk", "vmdk", bases.path("raw")))


for body, table in ((Damaged.is_error, errors), (Damaged.is_found, found),
                    (Errors.is_doubted, doubted), (Errors.is_hole_of, holes),
                    (Damaged.is_good, good)):
    for case, (of, what, *told) in table.items():
        add_case(Errors, case, body, of, what, *told)
for header_field in craft.VMDK_HEADER:
    for of in ("sparse", "front", "stream"):
        add_case(Sweep, f"{of}-{header_field}", Sweep.header, of, header_field)
    add_case(Sweep, f"footer-{header_field}", Sweep.header, "stream", header_field, True)

main()
