# SPDX-License-Identifier: MIT
"""qcow2 images broken in one place each."""
import random

import craft
from craft import COPIED, PACKED, get, l1_at, l2_at, packed_at, put, put_field
from harm import Bases, Damaged, Harm, cut
from peers import KIB, MIB, POKE, add_case, main, qemu_img, qemu_io, run, text_like

SIZE = MIB + 512
FAR = 1 << 40


def contents(path):
    """12 clusters of data in turn with holes, and the ragged end."""
    rng = random.Random(5)
    with open(path, "wb") as f:
        for cluster in range(17):
            if cluster not in (4, 5, 11):
                f.seek(cluster * 64 * KIB)
                f.write(text_like(rng, min(64 * KIB, SIZE - cluster * 64 * KIB)))
        f.truncate(SIZE)


bases = Bases("qcow2")


def make_bases():
    raw = bases.path("raw")
    contents(raw)
    kinds = {"plain": [], "v2": ["-o", "compat=0.10"], "small": ["-o", "cluster_size=4k"],
             "zlib": ["-c"], "zstd": ["-c", "-o", "compression_type=zstd"],
             "wide": ["-o", "extended_l2=on"]}
    for name, how in kinds.items():
        qemu_img("convert", *how, "-f", "raw", "-O", "qcow2", raw, bases.path(name))
    qemu_io(bases.path("plain"), "qcow2", "write -z 256k 64k")


make_bases()


def set_header(name, value):
    return lambda image: put_field(image, name, value)


def set_headers(**values):
    def harm(image):
        for name, value in values.items():
            put_field(image, name, value)
    return harm


def set_entry(where, value, *args):
    """Replaces the entry that where(image, *args) finds; `value` may be a function of the old."""
    def harm(image):
        at = where(image, *args)
        put(image, at, value(get(image, at)) if callable(value) else value)
    return harm


def table_at(image, index=0):
    return craft.field(image, "refcount_table_offset") + 8 * index


def scramble(index, start=20, length=40):
    """Noise in the middle of a packed stream."""
    def harm(image):
        at, _ = packed_at(image, index)
        image[at + start:at + start + length] = random.Random(index).randbytes(length)
    return harm


def short_stream(image):
    """A good deflate stream of half a cluster."""
    at, room = packed_at(image, 2)
    stream = craft.deflate(bytes(32 * KIB))
    image[at:at + room] = stream + bytes(room - len(stream))


def zero_stream(image):
    at, room = packed_at(image, 2)
    image[at:at + room] = bytes(room)


def unknown_bit(bit):
    return set_header("incompatible_features", 1 << bit)


def named_bit(image):
    """An unknown bit that the image's own table of names has a name for."""
    at = 112
    while get(image, at, 4) != 0x6803F857:
        at += 8 + (get(image, at + 4, 4) + 7) // 8 * 8
    image[at + 8:at + 56] = bytes([0, 40]) + b"frobnication".ljust(46, b"\0")
    put_field(image, "incompatible_features", 1 << 40)


def dump_extension(kind, length):
    """An extension in place of the first one."""
    def harm(image):
        put(image, 112, kind, 4)
        put(image, 116, length, 4)
    return harm


errors = {
    # The header: whole image.
    "magic": ("plain", set_header("magic", 0x51464900), "no qcow2 header"),
    "version-1": ("plain", set_header("version", 1), "version"),
    "version-4": ("plain", set_header("version", 4), "version"),
    "cluster-bits-8": ("plain", set_header("cluster_bits", 8), "cluster"),
    "cluster-bits-22": ("plain", set_header("cluster_bits", 22), "cluster"),
    "cluster-bits-63": ("plain", set_header("cluster_bits", 63), "cluster"),
    "cluster-bits-13-wide": ("wide", set_header("cluster_bits", 13), "cluster|header_length"),
    "size-of-64-eib": ("plain", set_header("size", (1 << 64) - 1), "size"),
    "size-over-l1": ("plain", set_header("size", 1 << 40), "l1_size|L1"),
    "l1-size-0": ("plain", set_header("l1_size", 0), "l1_size|L1"),
    "l1-size-huge": ("plain", set_header("l1_size", 0xFFFFFFFF), "l1_size|L1"),
    "l1-size-past-end": ("plain", set_header("l1_size", 4 << 20), "l1_size|L1"),
    "l1-misaligned": ("plain", set_header("l1_table_offset", 0x30200), "l1_table_offset|L1"),
    "l1-past-end": ("plain", set_header("l1_table_offset", FAR), "l1_table_offset|L1"),
    "l1-in-header": ("plain", set_header("l1_table_offset", 0), "l1_table_offset|L1"),
    "l1-overflows": ("plain", set_header("l1_table_offset", (1 << 64) - 65536),
                     "l1_table_offset|L1"),
    "crypt-3": ("plain", set_header("crypt_method", 3), "crypt"),
    "encrypted": ("plain", set_header("crypt_method", 1), "crypt"),
    "luks-without-header": ("plain", set_header("crypt_method", 2), "crypt"),
    "refcount-order-7": ("plain", set_header("refcount_order", 7), "refcount"),
    "header-length-96": ("plain", set_header("header_length", 96), "header_length"),
    "header-length-huge": ("plain", set_header("header_length", 1 << 31), "header_length"),
    "header-length-odd": ("plain", set_header("header_length", 113), "header_length"),
    "refcount-table-0": ("plain", set_header("refcount_table_clusters", 0), "refcount"),
    "refcount-table-huge": ("plain", set_header("refcount_table_clusters", 0xFFFFFFFF),
                            "refcount"),
    "refcount-table-misaligned": ("plain", set_header("refcount_table_offset", 0x10200),
                                  "refcount"),
    "snapshots-huge": ("plain", set_header("nb_snapshots", 0xFFFFFFFF), "snapshot"),
    "snapshots-past-end": ("plain", set_headers(nb_snapshots=2, snapshots_offset=FAR),
                           "snapshot"),
    "snapshots-misaligned": ("plain", set_headers(nb_snapshots=1, snapshots_offset=77),
                             "snapshot"),
    "codec-without-its-bit": ("plain", set_header("compression_type", 1), "compression"),
    "codec-bit-without-codec": ("plain", set_header("incompatible_features", 8), "compression"),
    "codec-2": ("zstd", set_header("compression_type", 2), "compression"),
    "unknown-bit-5": ("plain", unknown_bit(5), "incompatible|feature"),
    "unknown-bit-63": ("plain", unknown_bit(63), "incompatible|feature"),
    "unknown-bit-with-a-name": ("plain", named_bit, "frobnication"),
    "raw-data-file-without-data-file": ("plain", set_header("autoclear_features", 2),
                                        "data file|autoclear"),
    "extension-too-long": ("plain", dump_extension(0x12345678, 1 << 30), "extension"),
    "extension-length-wraps": ("plain", dump_extension(0x12345678, 0xFFFFFFFF), "extension"),
    "backing-name-past-header": ("plain", set_headers(backing_file_offset=FAR,
                                                      backing_file_size=5), "backing"),
    "backing-name-too-long": ("plain", set_headers(backing_file_offset=600,
                                                   backing_file_size=1024), "backing"),
    "data-file-bit-without-a-name": ("plain", set_header("incompatible_features", 4),
                                     "data file"),
    "cut-in-header": ("plain", cut(100), "header|end|short"),
    "cut-behind-header": ("plain", cut(4096), "L1|refcount|end"),
}

holes = {
    # Tables and data: a part of the disk.
    "l1-entry-past-end": ("plain", set_entry(l1_at, FAR | COPIED), "L1|L2"),
    "l1-entry-misaligned": ("plain", set_entry(l1_at, lambda e: e + 512), "L1|L2"),
    "l1-entry-reserved-low": ("plain", set_entry(l1_at, lambda e: e | 1), "L1"),
    "l1-entry-reserved-high": ("plain", set_entry(l1_at, lambda e: e | 1 << 57), "L1"),
    "l2-entry-past-end": ("plain", set_entry(l2_at, FAR | COPIED, 2), "cluster|L2|data"),
    "l2-entry-misaligned": ("plain", set_entry(l2_at, lambda e: e + 512, 2), "L2|cluster"),
    "l2-entry-reserved-low": ("plain", set_entry(l2_at, lambda e: e | 4, 2), "L2"),
    "l2-entry-reserved-high": ("plain", set_entry(l2_at, lambda e: e | 1 << 58, 2), "L2"),
    "l1-entry-into-l1": ("plain", set_entry(l1_at, 0x30000 | COPIED), "L1|L2"),
    "l1-entry-into-refcounts": ("plain", set_entry(l1_at, 0x10000 | COPIED), "L1|L2"),
    "l2-entry-into-l1": ("plain", set_entry(l2_at, 0x30000 | COPIED, 2), "L2"),
    "l2-entry-into-refcount-table": ("plain", set_entry(l2_at, 0x10000 | COPIED, 2), "L2"),
    "l2-zero-flag-in-v2": ("v2", set_entry(l2_at, lambda e: e | 1, 2), "L2"),
    "packed-with-copied": ("zlib", set_entry(l2_at, lambda e: e | COPIED, 2), "L2|COPIED"),
    "packed-past-end": ("zlib", set_entry(l2_at, craft.packed_entry(16, FAR, 900), 2),
                        "compressed|packed"),
    "packed-cut-by-end": ("zlib", cut(lambda i: packed_at(i, 15)[0] + 30), "compressed|packed|end"),
    "packed-does-not-inflate": ("zlib", scramble(2), "compressed|packed|inflate"),
    "packed-last-does-not-inflate": ("zlib", scramble(15), "compressed|packed|inflate"),
    "packed-inflates-short": ("zlib", short_stream, "compressed|packed|inflate"),
    "packed-is-zeros": ("zlib", zero_stream, "compressed|packed|inflate"),
    "zstd-frame-damaged": ("zstd", scramble(2, 0, 30), "compressed|packed|zstd"),
    "zstd-frame-middle-damaged": ("zstd", scramble(3, 400, 900), "compressed|packed|zstd"),
    "wide-both-bits": ("wide", set_entry(lambda i: l2_at(i, 2, 16) + 8, 0x100000001),
                       "subcluster|L2|bitmap"),
    "wide-bits-without-place": ("wide", set_entry(lambda i: l2_at(i, 2, 16), 0),
                                "subcluster|L2|bitmap"),
    "wide-packed-with-bits": ("wide", set_entry(lambda i: l2_at(i, 2, 16), PACKED | 0x60000),
                              "subcluster|L2|bitmap"),
    "cut-by-half": ("plain", cut(lambda i: len(i) // 2), "end|past"),
    "cut-by-a-cluster": ("plain", cut(lambda i: (len(i) - 1) // 65536 * 65536 - 65536), "end|past"),
    "l2-table-behind-end": ("small", set_entry(l1_at, FAR + 4096 | COPIED), "L1|L2"),
}

good = {
    "unknown-compatible-bit": ("plain", set_header("compatible_features", 1 << 60)),
    "unknown-autoclear-bit": ("plain", set_header("autoclear_features", 1 << 60)),
    "refcounts-unreadable": ("plain", set_entry(table_at, FAR)),
    "refcount-entry-misaligned": ("plain", set_entry(table_at, 0x20200)),
    "refcount-entry-reserved": ("plain", set_entry(table_at, lambda e: e | 3)),
    "dirty": ("plain", set_header("incompatible_features", 1)),
    "corrupt-is-still-read": ("plain", set_header("incompatible_features", 2)),
    "unknown-extension": ("plain", dump_extension(0x12345678, 16)),
    "copied-flag-lost": ("plain", set_entry(l2_at, lambda e: e & ~COPIED, 2)),
    "trailing-bytes": ("plain", lambda i: i + b"tail" * 1000),
}


class Errors(Damaged):
    bases = bases

    def is_hole_of(self, base, harm, *words):
        """Where a whole table is gone nothing is left."""
        self.is_hole(base, harm, *words, some=not words[0].startswith("L1"))


class Cuts(Damaged):
    """An image cut short anywhere is an error, unless what was cut off said nothing."""

    bases = bases

    def test_every_cluster_of_small(self):
        """The whole is some 250 clusters: all of the first ones, then every seventh."""
        self.assertGreater(self.cuts("small", lambda n: [*range(0, 40 * 4096, 4096),
                                                         *range(40 * 4096, n, 7 * 4096)]), 60)

    def test_every_cluster_of_plain(self):
        self.assertGreater(self.cuts("plain", lambda n: range(0, n, 65536)), 15)

    def test_every_cluster_of_wide(self):
        self.assertGreater(self.cuts("wide", lambda n: range(0, n, 65536)), 15)

    def test_by_one_byte(self):
        """The last cluster of these is data to its last byte, or padding that nobody needs."""
        for base in ("plain", "small", "zlib", "zstd", "wide"):
            self.cuts(base, lambda n: [n - 1, n - 2, n - 511, n - 512, n - 513])

    def test_packed_anywhere(self):
        for base in ("zlib", "zstd"):
            self.assertGreater(self.cuts(base, lambda n: range(5 * 65536, n - 1024, 5003)), 20)


class Refcounts(Harm):
    """Counts are for writing: an image whose counts lie must not be written to."""

    def refused(self, harm, *words):
        image = bases.damaged("plain", harm)
        done = run(POKE, image, "qcow2", "/dev/urandom", input="zero 0 1000000\n"
                   "write 0 1048576 0\nwrite 262144 65536 0\nflush\n", code=1)
        for word in ("broken.qcow2", *words):
            self.assertRegex(done.stderr, word)

    def test_table_entry_past_end(self):
        self.refused(set_entry(table_at, FAR), "refcount")

    def test_table_entry_misaligned(self):
        self.refused(set_entry(table_at, 0x20200), "refcount")

    def test_table_entry_reserved(self):
        self.refused(set_entry(table_at, lambda e: e | 3), "refcount")

    def test_corrupt_bit(self):
        self.refused(set_header("incompatible_features", 2), "corrupt")

    def test_all_counts_zero(self):
        """Free clusters that are in use: the next write would land on a table."""
        def harm(image):
            block = get(image, table_at(image))
            image[block:block + 65536] = bytes(65536)
        self.refused(harm)


class Sweep(Damaged):
    """Each field of the header at its ends."""

    bases = bases

    def header(self, base, name):
        def prefix(got, right):
            return name == "size" and right.startswith(got)

        self.sweep(base, lambda value: set_header(name, value), craft.QCOW2_HEADER[name][1],
                   lambda top: [top & -512], prefix)

    def test_a_kilobyte_that_claims_64_eib(self):
        with open("tiny.qcow2", "wb") as f:
            image = bytearray(craft.Qcow2((1 << 64) - 512).image()[:1024])
            f.write(image)
        self.assertTrue(self.judge("tiny.qcow2", "qcow2", bases.path("raw")))
        for bits, l1 in ((21, 4 << 20), (16, 4 << 20), (9, 4 << 20), (21, 1)):
            put_field(image, "size", (1 << 63) - 512)
            put_field(image, "cluster_bits", bits)
            put_field(image, "l1_size", l1)
            with open("tiny.qcow2", "wb") as f:
                f.write(image)
            self.assertTrue(self.judge("tiny.qcow2", "qcow2", bases.path("raw")))

    def test_entries_at_random(self):
        """Tables full of noise: an error, whatever they say."""
        for seed in range(20):
            def harm(image):
                rng = random.Random(seed)
                at = l2_at(image)
                for index in range(17):
                    put(image, at + 8 * index, rng.getrandbits(64))
            image = bases.damaged("plain", harm)
            self.assertTrue(self.judge(image, "qcow2", bases.path("raw")))


for case, (of, what, *told) in errors.items():
    add_case(Errors, case, Damaged.is_error, of, what, *told)
for case, (of, what, *told) in holes.items():
    add_case(Errors, case, Errors.is_hole_of, of, what, *told)
for case, (of, what) in good.items():
    add_case(Errors, case, Damaged.is_good, of, what)
for header_field in craft.QCOW2_HEADER:
    for of in ("plain", "zstd"):
        add_case(Sweep, f"{of}-{header_field}", Sweep.header, of, header_field)

main()
