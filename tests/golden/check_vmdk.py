# SPDX-License-Identifier: MIT
"""VMDK images broken in one place each: the check finds it, the repair mends it, a second check is
clean, and what the image holds is what it held, but for what was lost."""
import json
import os
import random
import shutil

import craft
import craft_esx as esx
from craft import AT_END, SECTOR, le, put_le, put_vmdk, vmdk_field
from harm import Bases, cut, measured
from judging import Checks, append, both, checker, write
from peers import (KIB, MIB, POKE, add_case, main, platter, qemu_img, run, sha256, text_like,
                   write_sparse)

GRAIN = 64 * KIB
SIZE = 80 * MIB + 512  # three grain tables, the last grain one sector long
DATA = [*range(8), 9, 10, 512, 513, 1024, 1025, 1280]  # grains that hold something
TABLE = 512


def contents():
    rng = random.Random(11)
    out = bytearray(SIZE)
    for grain in DATA:
        n = min(GRAIN, SIZE - grain * GRAIN)
        out[grain * GRAIN:grain * GRAIN + n] = text_like(rng, n)
    return bytes(out)


bases = Bases("vmdk")


def make_bases():
    write_sparse(bases.path("raw"), contents())
    for name, kind in (("sparse", "monolithicSparse"), ("front", "streamOptimized")):
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", bases.path("raw"),
                 bases.path(name))
    bases.write("stream", craft.stream_vmdk(contents()))


make_bases()


# ---- places in an image ------------------------------------------------------------------------

def gd_at(image, field="gdOffset"):
    gd = vmdk_field(image, field)
    return SECTOR * (le(image, len(image) - 1024 + 56, 8) if gd == AT_END else gd)


def gde_at(image, table, field="gdOffset"):
    return gd_at(image, field) + 4 * table


def gte_at(image, grain, field="gdOffset"):
    return SECTOR * le(image, gde_at(image, grain // TABLE, field)) + 4 * (grain % TABLE)


def gte(image, grain):
    return le(image, gte_at(image, grain))


COPIES = {"primary": ["gdOffset"], "redundant": ["rgdOffset"], "both": ["gdOffset", "rgdOffset"]}


def set_gde(table, value, which="primary"):
    """`value` may be a function of the image."""
    def harm(image):
        for field in COPIES[which]:
            put_le(image, gde_at(image, table, field), value(image) if callable(value) else value)
    return harm


def set_gte(grain, value, which="primary"):
    def harm(image):
        for field in COPIES[which]:
            put_le(image, gte_at(image, grain, field), value(image) if callable(value) else value)
    return harm


def set_header(name, value):
    return lambda image: put_vmdk(image, name, value)


def set_footer(name, value):
    return lambda image: put_vmdk(image, name, value, len(image) - 1024)


def set_record(grain, at, value, length):
    return lambda image: put_le(image, SECTOR * gte(image, grain) + at, value, length)


def shorten(n):
    return cut(lambda image: len(image) - n)


def swap(a, b, which):
    def harm(image):
        one, other = gte(image, a), gte(image, b)
        set_gte(a, other, which)(image)
        set_gte(b, one, which)(image)
    return harm


def replace(old, new):
    def harm(image):
        at = image.index(old)
        image[at:at + len(old)] = new
    return harm


# ---- what is expected --------------------------------------------------------------------------

check = checker("vmdk")


class Check(Checks):
    check = staticmethod(check)


def write_content(path, lost):
    """What the disk holds, some grains of which read as zeros."""
    run("cp", "--sparse=always", bases.path("raw"), path)
    with open(path, "r+b") as f:
        for grain in lost:
            f.seek(grain * GRAIN)
            f.write(bytes(max(0, min(GRAIN, SIZE - grain * GRAIN))))


def expect_content(self, image, lost=(), peer=True):
    write_content("right", lost)
    platter("compare", "-f", "vmdk", "-F", "raw", image, "right")
    if peer:
        qemu_img("compare", "-f", "vmdk", "-F", "raw", image, "right")
        qemu_img("check", "-f", "vmdk", image)


def expect_findings(self, image, code, field, words):
    """A look finds it, and changes nothing; -r leaks does not touch what is damaged."""
    answer = self.sees(image, code, words)
    self.assertGreater(answer.get(field, 0), 0, answer)
    if field == "corruptions":
        with self.unchanged(image, "what is damaged was touched for its leaks"):
            check(image, "-r", "leaks", code=code)
    return answer


def mends(self, base, harm, *words, lost=(), peer=True):
    image = bases.damaged(base, harm)
    expect_findings(self, image, 2, "corruptions", words)
    answer, said = check(image, "-r", "all", code=3 if lost else 0)
    self.assertGreater(answer["corruptions-fixed"], 0, answer)
    self.assertNotIn("corruptions", answer)
    if lost:  # what a dropped entry led to is kept until somebody says that it may go
        self.assertIn("-r leaks gives them back", said)
        answer, _ = check(image, "-r", "leaks")
        self.assertGreater(answer["leaks-fixed"], 0, answer)
    self.is_clean(image, "--data")
    expect_content(self, image, lost, peer)


def stays(self, base, harm, *words):
    """Nothing can be done about it; and nothing is."""
    image = bases.damaged(base, harm)
    expect_findings(self, image, 2, "corruptions", words)
    self.is_left_alone(image)


def leaks(self, base, harm, n, left=0, *words):
    image = bases.damaged(base, harm)
    answer = expect_findings(self, image, 3, "leaks", words)
    self.assertEqual(answer["leaks"], n)
    answer, _ = check(image, "-r", "leaks", code=3 if left else 0)
    self.assertEqual(answer.get("leaks", 0), left)
    self.assertEqual(answer.get("leaks-fixed", 0), n - left)
    expect_content(self, image)


def notes(self, base, harm, *words):
    image = bases.damaged(base, harm)
    answer, said = check(image)
    self.assertEqual([f["severity"] for f in answer["findings"]], ["note"])
    for word in words:
        self.assertRegex(said, word)
    expect_content(self, image, peer=False)


def case(name, judge, *args, **more):
    add_case(Check, name, lambda self: judge(self, *args, **more))


FAR = 10000000
first = lambda image: gte(image, DATA[0])

# ---- header and footer
case("header_overhead", stays, "sparse", set_header("overHead", 1 << 40), "header offset 64")
case("header_newlines", stays, "sparse", set_header("nonEndLineChar", 10), "transferred as text")
case("header_capacity", stays, "sparse", set_header("capacity", 1 << 60), "header offset 12")
case("header_grain_size", stays, "sparse", set_header("grainSize", 100), "header offset 20")
case("header_gd_lost", mends, "sparse", set_header("gdOffset", FAR), "grain directory")
case("header_gd_in_descriptor", mends, "sparse", set_header("gdOffset", 5), "grain directory")
case("header_rgd_lost", mends, "sparse", set_header("rgdOffset", FAR), "redundant grain directory")
case("header_unclean", notes, "sparse", set_header("uncleanShutdown", 1), "not closed")
case("header_from_footer", mends, "stream", set_header("capacity", 7), "contradict", peer=False)
case("header_magic_from_footer", mends, "stream", set_header("magic", 0), "not a sparse VMDK",
     peer=False)
case("header_front_from_footer", mends, "stream", set_header("gdOffset", FAR), "grain directory",
     peer=False)
case("footer_from_header", mends, "stream", set_footer("grainSize", 77), "contradict", peer=False)
case("footer_grain_size", mends, "stream", set_footer("grainSize", 64), "contradict", peer=False)
case("footer_capacity", mends, "stream", set_footer("capacity", 7), "contradict", peer=False)
case("footer_capacity_more", mends, "stream", set_footer("capacity", SIZE // 512 + 5), "contradict",
     peer=False)
case("footer_no_magic", mends, "stream", set_footer("magic", 0), "no footer", peer=False)
case("footer_gd", mends, "stream", set_footer("gdOffset", 200), "no marker", peer=False)
case("footer_cut_off", mends, "stream", shorten(1536), "no footer", peer=False)
case("stream_overhead", mends, "stream", both(shorten(1536), set_header("overHead", 200)), "no footer",
     peer=False)
case("stream_overhead_far", mends, "stream", both(shorten(1536), set_header("overHead", 1 << 50)),
     "no footer", peer=False)
case("stream_descriptor", mends, "stream", both(shorten(1536), set_header("descriptorOffset", 1 << 49)),
     "no footer", peer=False)
case("stream_cut_in_tables", mends, "stream", shorten(4096), "no footer", peer=False)

# ---- directories
case("gde_behind_end", mends, "sparse", set_gde(1, FAR), "entry 1 of the grain directory")
case("gde_redundant_behind_end", mends, "sparse", set_gde(1, FAR, "redundant"),
     "entry 1 of the redundant grain directory")
case("gde_in_metadata", mends, "sparse", set_gde(0, 3), "entry 0 of the grain directory")
case("gde_zero", mends, "sparse", set_gde(0, 0), "names no table")
case("gde_redundant_zero", mends, "sparse", set_gde(0, 0, "redundant"), "names no table")
case("gde_twice", mends, "sparse", set_gde(2, lambda i: le(i, gde_at(i, 0))), "another entry's")
case("gde_half_over_another", mends, "sparse", set_gde(2, lambda i: le(i, gde_at(i, 0)) + 1),
     "another entry's")
case("gde_is_the_redundant", mends, "sparse", set_gde(1, lambda i: le(i, gde_at(i, 1, "rgdOffset"))),
     "another entry's")
case("gde_both_lost", mends, "sparse", set_gde(1, FAR, "both"), "entry 1", lost=[512, 513])
case("stream_gde_behind_end", mends, "stream", set_gde(1, FAR), "entry 1", peer=False)
case("stream_gde_zero", mends, "stream", set_gde(1, 0), "no table names", peer=False)
case("stream_gde_twice", mends, "stream", set_gde(1, lambda i: le(i, gde_at(i, 0))), "another",
     peer=False)
case("front_gde_behind_end", mends, "front", set_gde(0, FAR), "entry 0")

# ---- tables
case("gte_behind_end", mends, "sparse", set_gte(4, FAR), "grain 4 .* 10000000, .* copy")
case("gte_redundant_behind_end", mends, "sparse", set_gte(4, FAR, "redundant"), "grain 4 ")
case("gte_both_behind_end", mends, "sparse", set_gte(4, FAR, "both"), "behind the end", lost=[4])
case("gte_at_2_to_32", mends, "sparse", set_gte(4, (1 << 32) - 1, "both"), "behind", lost=[4])
case("gte_in_metadata", mends, "sparse", set_gte(4, 30, "both"), "inside metadata", lost=[4])
case("gte_in_header", mends, "sparse", set_gte(4, 2), "grain 4 ")
case("gte_zero", mends, "sparse", set_gte(4, 0), "grain 4 .* says sector 0, ")
case("gte_redundant_zero", mends, "sparse", set_gte(4, 0, "redundant"), "copy 0")
case("gte_both_zero", leaks, "sparse", both(append(bytes(GRAIN))), 1)
case("gte_conflict", mends, "sparse", set_gte(4, first, "redundant"), "grain 4 ")
case("gte_beyond_capacity", mends, "sparse", set_gte(1400, first, "both"), "capacity ends")
case("gte_value_1", notes, "sparse", set_gte(20, 1, "both"), "does not announce")
case("stream_gte_behind_end", mends, "stream", set_gte(4, FAR), "grain 4 ", peer=False)
case("stream_gte_zero", mends, "stream", set_gte(4, 0), "no table names", peer=False)
case("stream_gte_beyond_capacity", mends, "stream", set_gte(1400, first), "capacity ends", peer=False)
case("stream_gtes_swapped", mends, "stream", swap(4, 512, "primary"), "is of sector", peer=False)
case("front_gtes_swapped", mends, "front", swap(4, 512, "both"), "is of sector")
case("front_gte_behind_end", mends, "front", set_gte(4, FAR, "both"), "grain 4 ")
case("front_gte_differs", mends, "front", set_gte(4, first, "redundant"), "redundant copy")

# ---- records
case("record_size_0", mends, "front", set_record(4, 8, 0, 4), "1 to 131072", lost=[4])
case("record_size_large", mends, "front", set_record(4, 8, 131073, 4), "1 to 131072", lost=[4])
case("record_lba", mends, "front", set_record(1, 0, 5 * 128, 8), "is of sector 640", lost=[1])

# ---- space of nobody
case("leak_at_end", leaks, "sparse", append(b"x" * 3 * GRAIN), 3, 0, "belong to nobody")
case("leak_half_a_grain", leaks, "sparse", append(b"x" * 700), 1)


# ---- more than a field

def shared_grain(self):
    """Both of those that name a grain go on to show it, but each its own."""
    image = bases.damaged("sparse", set_gte(8, first, "both"))
    expect_findings(self, image, 2, "corruptions", ["grain 8 .* where another one is"])
    check(image, "-r", "all")
    check(image)
    write_content("right", [])
    with open("right", "r+b") as f:
        first_grain = f.read(GRAIN)
        f.seek(8 * GRAIN)
        f.write(first_grain)
    qemu_img("compare", "-f", "vmdk", "-F", "raw", image, "right")
    platter("compare", "-f", "vmdk", "-F", "raw", image, "right")


case("gte_shared", shared_grain)


def settles_overlap(self):
    """Of entries that name one table it is the one whose copy says something else that is wrong,
    whichever comes first. The right one keeps its table."""
    for wrong, right, further in ((0, 2, 0), (2, 0, 0), (1, 0, 1), (0, 1, 3)):
        def harm(image, wrong=wrong, right=right, further=further):
            put_le(image, gde_at(image, wrong), le(image, gde_at(image, right)) + further)
        image = bases.damaged("sparse", harm)
        answer, said = check(image, code=2)
        self.assertEqual(answer["corruptions"], 1, said)
        self.assertRegex(said, f"entry {wrong} of the grain directory .* another entry's")
        check(image, "-r", "all")
        check(image, "--data")
        with open(image, "rb") as f:
            mended = f.read()
        for i in range(3):
            now, before = (le(m, gde_at(m, i)) for m in (mended, bases.read("sparse")))
            self.assertEqual(now == before, i != wrong, f"entry {i}")
        expect_content(self, image)


case("gde_of_another", settles_overlap)


def shared_table_is_not_written(self):
    """A write through one entry would change what the other has."""
    for harm in (set_gde(2, lambda i: le(i, gde_at(i, 0))),
                 set_gde(2, lambda i: le(i, gde_at(i, 0, "rgdOffset")) + 2)):
        image = bases.damaged("sparse", harm)
        before = sha256(image)
        done = run(POKE, image, "vmdk", bases.path("raw"), input="write 0 512 0\n", code=1)
        self.assertRegex(done.stderr, "grain tables at sectors .* overlap: .* must be repaired")
        self.assertEqual(sha256(image), before)


case("table_shared_written", shared_table_is_not_written)


def grain_in_straddling_table(self):
    """The header's overHead lies inside of a table: no grain stands in what is left of that."""
    def harm(image, grain):
        table = le(image, gde_at(image, 2))
        put_vmdk(image, "overHead", table + 1)
        set_gte(grain, table + 2)(image)
    for grain in (4, 1025):
        image = bases.damaged("sparse", lambda i, grain=grain: harm(i, grain))
        done = platter("convert", "-f", "vmdk", "-O", "raw", image, "target", code=1)
        self.assertRegex(done.stderr, f"grain {grain} .* inside a grain table")


case("grain_in_straddling_table", grain_in_straddling_table)


def unaligned(self):
    """A grain between the places of others is read all the same."""
    def harm(image):
        at = SECTOR * gte(image, 4)
        image.extend(bytes(5 * SECTOR) + image[at:at + GRAIN])
        set_gte(4, len(image) // SECTOR - 128, "both")(image)
    image = bases.damaged("sparse", harm)
    answer, said = check(image, code=3)
    self.assertEqual(answer["leaks"], 1)
    self.assertIn("not all aligned", said)
    expect_content(self, image)


case("gte_unaligned", unaligned)


def wrong_directory(self, field):
    """One bit of where a directory is: the other one is what there is to go by, and no grain is
    taken for a table, or written over."""
    for bit in (0, 1, 2, 5, 7, 10):
        image = bases.damaged("sparse", lambda i: put_vmdk(i, field, vmdk_field(i, field) ^ 1 << bit))
        check(image, "-r", "all")
        check(image)
        expect_content(self, image)


case("header_gd_bits", wrong_directory, "gdOffset")
case("header_rgd_bits", wrong_directory, "rgdOffset")


def wrong_number(self, base, field, value, code):
    """The header says other than what the tables were made with. What can be told from the rest is
    mended; whatever was done, all that was there is there once the header is right."""
    image = bases.damaged(base, set_header(field, value))
    check(image, "-r", "leaks", code=code or 2)
    check(image, "-r", "all", code=code)
    if code == 0:
        check(image)
        expect_content(self, image)
    with open(image, "r+b") as f:
        f.write(bases.read(base)[:SECTOR])
    expect_content(self, image)


def grains_seem_twice_as_large(self):
    """Grains are said to be half as large as they are, and nothing but their places tells: there is
    one table either way. The second half of each is no leak."""
    with open("small.raw", "wb") as f:
        f.write(contents()[:10 * MIB])
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "small.raw", "small.vmdk")
    with open("small.vmdk", "rb") as f:
        image = bytearray(f.read())
    right = bytes(image[:SECTOR])
    put_vmdk(image, "grainSize", 64)
    with open("small.vmdk", "wb") as f:
        f.write(image)
    before = sha256("small.vmdk")
    for what in ("leaks", "all"):
        answer, said = check("small.vmdk", "-r", what, code=3)
        self.assertGreater(answer["leaks"], 0)
        self.assertIn("it may be the header or the grain directory that is wrong", said)
        self.assertEqual(sha256("small.vmdk"), before)
    with open("small.vmdk", "r+b") as f:
        f.write(right)
    platter("compare", "-f", "vmdk", "-F", "raw", "small.vmdk", "small.raw")


case("header_grain_half_one_table", grains_seem_twice_as_large)


CAPACITY = SIZE // 512
case("header_capacity_one_less", wrong_number, "sparse", "capacity", CAPACITY - 1, 0)
case("header_capacity_less", wrong_number, "sparse", "capacity", CAPACITY ^ 1 << 15, 0)
case("header_capacity_fewer_tables", wrong_number, "sparse", "capacity", CAPACITY ^ 1 << 17, 2)
case("header_capacity_more", wrong_number, "sparse", "capacity", CAPACITY | 1 << 25, 2)
case("front_capacity_more", wrong_number, "front", "capacity", CAPACITY | 1 << 30, 2)
case("header_grain_half", wrong_number, "sparse", "grainSize", 64, 3)
case("header_grain_double", wrong_number, "sparse", "grainSize", 256, 2)
case("header_gtes_half", wrong_number, "sparse", "numGTEsPerGT", 256, 3)
case("header_gtes_double", wrong_number, "sparse", "numGTEsPerGT", 1024, 2)
case("header_overhead_more", wrong_number, "sparse", "overHead", 128 + 1024, 0)
case("front_overhead_more", wrong_number, "front", "overHead", 128 + 64, 0)


def shared_file(self):
    """Behind the grains of one extent is what another one, flat, has in the same file."""
    extent = bases.damaged("sparse", append(b"x" * GRAIN), "one.vmdk")
    os.link(extent, "other.vmdk")
    before = sha256(extent)
    end = os.path.getsize(extent) // SECTOR
    for name in ("one.vmdk", "other.vmdk"):
        with open("two.vmdk", "wb") as f:
            f.write(craft.descriptor("custom", [f'RW {CAPACITY} SPARSE "one.vmdk"',
                                                f'RW 128 FLAT "{name}" {end - 128}']))
        _, said = check("two.vmdk", code=2)
        self.assertIn("are both the file", said)
        for what in ("leaks", "all"):  # under another name it is locked already
            platter("check", "-r", what, "-f", "vmdk", "two.vmdk",
                    code=2 if name == "one.vmdk" else 1)
        self.assertEqual(sha256(extent), before)


case("two_extents_one_file", shared_file)


def records_without_place(self):
    """Records that do not say which grain they are: their tables cannot be made anew."""
    image = craft.stream_vmdk(contents(), flags=0x10001, record=craft.plain_record)
    bases.write("plain", image)
    check(bases.damaged("plain", lambda i: None))
    stays(self, "plain", set_gde(1, FAR), "entry 1 ")
    stays(self, "plain", set_gte(4, FAR), "grain 4 ")


case("stream_without_markers", records_without_place)


def later_record(self):
    """A record that is too short, or damaged, does not take the place of a sound one in front of it,
    whether tables are made anew or the image is salvaged."""
    short = craft.grain_record(4 * 128, b"short" * 100)
    broken = bytearray(craft.grain_record(4 * 128, bases.read("raw")[:GRAIN]))
    broken[200:300] = bytes(100)
    for record in (short, broken):
        image = bases.damaged("stream", both(shorten(1536), append(record)))
        platter("convert", "--salvage", "-q", "-f", "vmdk", "-O", "raw", image, "rescued", code={0, 4})
        self.assertEqual(sha256("rescued"), sha256(bases.path("raw")))
        os.unlink("rescued")
        answer, _ = check(image, "-r", "all", code=3)
        self.assertEqual((answer.get("corruptions", 0), answer["leaks"]), (0, 1))
        check(image, "--data", code=3)
        expect_content(self, image)


case("stream_later_record", later_record)


def last_record(self):
    """The last record of a stream does not inflate: it is damaged, but not taken away."""
    image = bases.damaged("stream", both(set_record(1280, 12 + 100, 0x1234567890, 5), set_gde(1, FAR)))
    check(image, "-r", "all", code=3)
    _, said = check(image, "--data", code=2)
    self.assertIn(f"grain 1280 (guest offset {1280 * GRAIN} of the extent) stands", said)


case("stream_last_record", last_record)


def rewrites_line(self):
    mends(self, "sparse", replace(f"RW {SIZE // 512} SPARSE".encode(), b"RW 999999 SPARSE"),
          "999999", "header offset 12")


# The disk is as long as its capacity then, which the peer made a whole number of sectors.
case("line_too_long", rewrites_line)


def stream_record_lba(self):
    """Tables are made anew around a record that is no grain's; in a stream it cannot be zeroed."""
    image = bases.damaged("stream", set_record(1, 0, 5 * 128, 8))
    expect_findings(self, image, 2, "corruptions", ["is of sector 640"])
    for options in (("-r", "all"), ("--data",)):
        answer, _ = check(image, *options, code=3)
        self.assertEqual((answer.get("corruptions", 0), answer["leaks"]), (0, 1))
    expect_content(self, image, lost=[1])


case("stream_record_lba", stream_record_lba)


def leaks_inside(self):
    """A grain in the middle that no table names is given back by a hole."""
    image = bases.damaged("sparse", set_gte(DATA[3], 0, "both"))
    answer, _ = check(image, code=3)
    self.assertEqual(answer["leaks"], 1)
    used = os.stat(image).st_blocks
    answer, _ = check(image, "-r", "leaks")
    self.assertEqual(answer["leaks-fixed"], 1)
    self.assertEqual(os.stat(image).st_blocks, used - GRAIN // 512)
    expect_content(self, image, lost=[DATA[3]])


case("leak_inside", leaks_inside)


def leaked_with_damage(self):
    """What seems to be nobody's may be what a damaged table lost: it is kept."""
    image = bases.damaged("sparse", both(append(b"x" * GRAIN), set_gte(4, FAR)))
    before = sha256(image)
    check(image, "-r", "leaks", code=2)
    self.assertEqual(sha256(image), before)
    answer, _ = check(image, "-r", "all")
    self.assertEqual((answer["leaks-fixed"], answer["corruptions-fixed"]), (1, 1))
    expect_content(self, image)


case("leak_beside_damage", leaked_with_damage)


def stream_cut(self):
    """A download that ended early: what is whole is kept."""
    image = bases.damaged("stream", lambda i: i.__delitem__(slice(SECTOR * gte(i, 513) + 100, None)))
    expect_findings(self, image, 2, "corruptions", ["no footer"])
    check(image, "-r", "all")
    check(image, "--data")
    expect_content(self, image, lost=[g for g in DATA if g >= 513], peer=True)


case("stream_cut_in_record", stream_cut)


def front_lost_table(self):
    """Both copies of a table are gone: the records tell what was in it."""
    image = bases.damaged("front", set_gde(1, FAR, "both"))
    expect_findings(self, image, 2, "corruptions", ["entry 1 "])
    check(image, "-r", "all")
    check(image, "--data")
    expect_content(self, image)


case("front_gde_both_lost", front_lost_table)


def damaged_data(self):
    """Nothing but unpacking shows that a grain is damaged."""
    for base in ("front", "stream"):
        image = bases.damaged(base, set_record(5, 12 + 500, 0x1234567890, 5))
        check(image)
        answer, said = check(image, "--data", code=2)
        self.assertEqual(answer["corruptions"], 1)
        self.assertIn(f"guest offset {5 * GRAIN}", said)


case("record_data", damaged_data)


def flat_short(self):
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat",
             bases.path("raw"), "flat.vmdk")
    platter("check", "flat.vmdk")
    os.truncate("flat-flat.vmdk", 1280 * GRAIN)
    _, said = check("flat.vmdk", code=2)
    self.assertIn("flat-flat.vmdk: ends at byte", said)
    answer, _ = check("flat.vmdk", "-r", "all")
    self.assertEqual(answer["corruptions-fixed"], 1)
    expect_content(self, "flat.vmdk", lost=[1280])


case("flat_short", flat_short)


def split_set(self):
    """Damage in one file of several, an extent that is missing, one that is looked at alone."""
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse",
             bases.path("raw"), "set.vmdk")
    check("set.vmdk")
    with open("set-s001.vmdk", "r+b") as f:
        image = bytearray(f.read())
        set_gte(4, FAR)(image)
        f.seek(0)
        f.write(image)
    _, said = check("set.vmdk", code=2)
    self.assertIn("set-s001.vmdk: the entry of grain 4 ", said)
    _, said = check("set-s001.vmdk", code=2)
    self.assertIn("without a descriptor", said)
    check("set.vmdk", "-r", "all")
    expect_content(self, "set.vmdk")
    with open("set.vmdk") as f, open("twice.vmdk", "w") as g:
        text = f.read()
        g.write(text.replace("# The Disk Data Base",
                             text[text.index("RW "):].split("\n")[0] + "\n# The Disk Data Base"))
    _, said = check("twice.vmdk", code=2)
    self.assertIn("extents 0 and 1 of the descriptor are both", said)
    os.rename("set-s001.vmdk", "away")
    _, said = check("set.vmdk", code=1)
    self.assertIn("set-s001.vmdk", said)


case("split", split_set)


def parent(self):
    shutil.copy(bases.path("sparse"), "base.vmdk")
    qemu_img("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk")
    check("child.vmdk")
    qemu_img("bench", "-f", "vmdk", "-w", "-c", "1", "base.vmdk")
    _, said = check("child.vmdk", code=2)
    self.assertIn("parentCID", said)
    os.rename("base.vmdk", "away")
    _, said = check("child.vmdk", code=1)
    self.assertIn("base.vmdk", said)


case("parent", parent)


def no_descriptor(self):
    image = bases.damaged("sparse", replace(b"createType", b"cr_ateType"))
    expect_findings(self, image, 2, "corruptions", ["no createType"])


case("descriptor", no_descriptor)


# ---- ESX

ESX_SECTORS = 3 * 4096 + 1000


def esx_disk(extent, kind, word, sectors=ESX_SECTORS):
    with open("disk.vmdk", "wb") as f:
        f.write(esx.text(kind, [f'RW {sectors} {word} "extent.vmdk"']))
    with open("extent.vmdk", "wb") as f:
        f.write(extent)
    return "disk.vmdk"


def cowd():
    rng = random.Random(3)
    content = rng.randbytes(ESX_SECTORS * SECTOR)
    return esx.Cowd(ESX_SECTORS).add_all(content, [0, 1, 2, 77, 5000, 5001, ESX_SECTORS - 1])


COWD_TABLE = SECTOR * 5  # of the first table: behind header and directory


def cowd_case(name, harm, field, code, *words):
    """Mended, and then sound."""
    def body(self):
        image = cowd().image()
        check(esx_disk(image, "vmfsSparse", "VMFSSPARSE"))
        platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "before")
        harm(image)
        esx_disk(image, "vmfsSparse", "VMFSSPARSE")
        _, said = check("disk.vmdk", code=code)
        for word in words:
            self.assertRegex(said, word)
        answer, _ = check("disk.vmdk", "-r", "all", code=3 if name in DROPPED else 0)
        self.assertNotIn("corruptions", answer)
        self.assertGreater(answer.get(field, 0), 0)
        if name in DROPPED:  # their grains are smaller than a block of the host
            answer, _ = check("disk.vmdk", "-r", "leaks")
            self.assertGreater(answer.get("leaks-fixed", 0), 0)
        answer, _ = check("disk.vmdk")
        self.assertEqual(set(answer) & {"corruptions", "leaks", "findings"}, set(), answer)
        platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "after")
        with open("before", "rb") as f, open("after", "rb") as g:
            before, after = f.read(), g.read()
        differ = [i for i in range(ESX_SECTORS)
                  if before[i * 512:i * 512 + 512] != after[i * 512:i * 512 + 512]]
        self.assertEqual(differ, LOST.get(name, []))
    add_case(Check, name, body)


LOST = {"cowd_gte_behind_end": [1], "cowd_gte_in_header": [1], "cowd_gte_shared": [1],
        "cowd_gde": [5000, 5001]}

DROPPED = LOST.keys() - {"cowd_gte_shared"}

cowd_case("cowd_gte_behind_end", lambda i: put_le(i, COWD_TABLE + 4, FAR), "corruptions-fixed", 2,
          "grain 1 .* behind the end")
cowd_case("cowd_gte_in_header", lambda i: put_le(i, COWD_TABLE + 4, 1), "corruptions-fixed", 2,
          "grain 1 .* inside metadata")
cowd_case("cowd_gte_shared", lambda i: put_le(i, COWD_TABLE + 4, le(i, COWD_TABLE)),
          "corruptions-fixed", 2, "grain 1 .* where another one is")
cowd_case("cowd_gde", lambda i: put_le(i, 4 * SECTOR + 4, FAR), "corruptions-fixed", 2,
          "entry 1 of the grain directory")
cowd_case("cowd_free_sector", lambda i: esx.put_cowd(i, "freeSector", 20), "corruptions-fixed", 2,
          "freeSector")
cowd_case("cowd_free_sector_by_one",
          lambda i: esx.put_cowd(i, "freeSector", len(i) // SECTOR - 1), "corruptions-fixed", 2,
          "freeSector")
cowd_case("cowd_leak", lambda i: i.extend(b"x" * 2048), "leaks-fixed", 2, "belong to nobody")


def cowd_elsewhere(self):
    """The only directory is not where the header says: nothing is mended to pieces, or given back."""
    image = cowd().image()
    esx_disk(image, "vmfsSparse", "VMFSSPARSE")
    platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "before")
    table = COWD_TABLE // SECTOR
    # At a table, in a grain of noise, in a hole: sectors, noise and zeros for entries.
    for place, code in ((table, 2), (table + 32, 2), (table + 3, 3)):
        esx.put_cowd(image, "gdOffset", place)
        esx_disk(image, "vmfsSparse", "VMFSSPARSE")
        before = sha256("extent.vmdk")
        check("disk.vmdk", code=code)
        for what in ("all", "leaks", "all"):
            _, said = check("disk.vmdk", "-r", what, code=code)
            if code == 2 and what == "all":
                self.assertRegex(said, "make no sense: one cannot tell.*not repaired")
            if code == 3:
                self.assertIn("it may be the header or the grain directory that is wrong", said)
            self.assertEqual(sha256("extent.vmdk"), before, f"{place} {what}")
    # A sector on, in a directory of some: all that it names makes sense.
    far = esx.Cowd(300 * 4096)
    for grain in (100, 101, 200 * 4096):
        far.add(grain, b"some")
    far = far.image()
    esx.put_cowd(far, "gdOffset", 5)
    esx_disk(far, "vmfsSparse", "VMFSSPARSE", 300 * 4096)
    before = sha256("extent.vmdk")
    for what in ("leaks", "all"):
        _, said = check("disk.vmdk", "-r", what, code=3)
        self.assertIn("it may be the header or the grain directory that is wrong", said)
        self.assertEqual(sha256("extent.vmdk"), before)
    esx.put_cowd(image, "gdOffset", 4)
    esx_disk(image, "vmfsSparse", "VMFSSPARSE")
    platter("compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "before")


case("cowd_elsewhere", cowd_elsewhere)


def single_elsewhere(self):
    """The same of a hosted file with one directory: its entries make sense, but not its tables."""
    def single(image):
        put_vmdk(image, "flags", vmdk_field(image, "flags") & ~2)
        put_vmdk(image, "rgdOffset", 0)
    check(bases.damaged("sparse", single))
    for gd in (lambda i: le(i, gde_at(i, 0)), lambda i: gte(i, 9), lambda i: gte(i, 10) + 5):
        stays(self, "sparse", both(single, lambda i: put_vmdk(i, "gdOffset", gd(i))),
              "make no sense|where no grain table can be|behind the end")


case("single_elsewhere", single_elsewhere)


def dropped_is_kept(self):
    """What a dropped entry led to is there after -r all, and found by whoever puts it right."""
    image = bases.damaged("sparse", set_gte(4, FAR, "both"))
    right = bases.read("sparse")
    check(image, "-r", "all", code=3)
    with open(image, "r+b") as f:
        broken = bytearray(f.read())
        set_gte(4, gte(right, 4), "both")(broken)
        f.seek(0)
        f.write(broken)
    check(image)
    expect_content(self, image)


case("dropped_is_kept", dropped_is_kept)


def conflict_is_kept(self):
    """The copies of an entry name a grain each: the one that loses may be the better one."""
    def harm(image):
        image.extend(b"y" * GRAIN)
        set_gte(4, len(image) // SECTOR - 128, "redundant")(image)
    image = bases.damaged("sparse", harm)
    check(image, "-r", "all", code=3)
    answer, _ = check(image, "-r", "leaks")
    self.assertEqual(answer["leaks-fixed"], 1)
    expect_content(self, image)


case("conflict_is_kept", conflict_is_kept)


def leaks_in_small_grains(self):
    """Grains that are smaller than a block, or across its edge: what cannot be given back is made
    zeros, and found no more."""
    image = cowd()
    image.add_all(random.Random(5).randbytes(ESX_SECTORS * SECTOR), range(100, 180))
    for grain in (1, 100, *range(103, 150), 178):
        put_le(image.out, image.entry_at(grain), 0)
    esx_disk(image.image(), "vmfsSparse", "VMFSSPARSE")
    platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "before")
    used = os.stat("extent.vmdk").st_blocks
    answer, _ = check("disk.vmdk", code=3)
    self.assertEqual(answer["leaks"], 50)
    answer, _ = check("disk.vmdk", "-r", "leaks")
    self.assertEqual((answer["leaks-fixed"], answer.get("leaks", 0)), (50, 0))
    self.assertLess(os.stat("extent.vmdk").st_blocks, used)
    answer, said = check("disk.vmdk")
    self.assertEqual((answer.get("leaks", 0), said), (0, ""))
    platter("compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "before")


case("leak_in_small_grains", leaks_in_small_grains)


def leak_unaligned(self):
    """Grains that begin anywhere leak as well: one between others, one at the end."""
    image = esx.Cowd(100 * 128, grain=128)  # its grains begin behind 5 + 32 sectors
    image.add_all(random.Random(6).randbytes(100 * GRAIN), range(9))
    for grain in (3, 8):
        put_le(image.out, image.entry_at(grain), 0)
    with open("disk.vmdk", "wb") as f:
        f.write(esx.text("vmfsSparse", ['RW 12800 VMFSSPARSE "extent.vmdk"']))
    with open("extent.vmdk", "wb") as f:
        f.write(image.image())
    answer, _ = check("disk.vmdk", code=3)
    self.assertEqual(answer["leaks"], 2)
    answer, _ = check("disk.vmdk", "-r", "leaks")
    self.assertEqual((answer["leaks-fixed"], answer.get("leaks", 0)), (2, 0))


case("leak_unaligned", leak_unaligned)


def named_often(self):
    """One file under thousands of lines, however they spell it, is judged once."""
    shutil.copy(bases.path("sparse"), "one.vmdk")
    os.link("one.vmdk", "other.vmdk")
    names = ("one.vmdk", "./one.vmdk", ".//./one.vmdk", "other.vmdk")
    with open("many.vmdk", "wb") as f:
        f.write(craft.descriptor("custom", [f'RW {CAPACITY} SPARSE "{names[i % 4]}"'
                                            for i in range(4096)]))
    code, said = measured("check", "-f", "vmdk", "many.vmdk")
    self.assertEqual(code, 2, said)
    self.assertIn("extents 0 and 1 of the descriptor are both the file", said)
    self.assertIn("4095 errors were found", said)


case("one_file_often", named_often)


def sesparse_made(harm=lambda s: None):
    image = esx.SeSparse(ESX_SECTORS)
    image.add_all(random.Random(4).randbytes(ESX_SECTORS * SECTOR), [0, 1, 2, 900])
    image.unmapped(20)
    image.zeroed(21)
    harm(image)
    esx_disk(image.image(), "seSparse", "SESPARSE")


def keep_maps(se):
    put_le(se.out, se.areas["freeBitmap"][0] * SECTOR, 0xff)


def sesparse(self):
    """Entries that lead nowhere are dropped where nobody keeps books on them. All else stays."""
    sesparse_made()
    platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "before")
    answer, _ = check("disk.vmdk")
    self.assertEqual((answer["allocated-clusters"], answer.get("fragmented-clusters", 0)), (4, 0))
    with open("before", "rb") as f:
        content = bytearray(f.read())
    for harm, word, grain in (
            (lambda s: s.set(2, 5 << 60), "grain 2 .* no known type", 2),
            (lambda s: s.set(2, 7), "grain 2 .* no known type", 2),
            (lambda s: s.set(2, s.entry(3, 1700)), "grain 2 .* behind the last grain", 2),
            (lambda s: s.set(2, s.entry(3, 1500)), "grain 2 .* behind the end", 2),
            (lambda s: s.set(4000, s.entry(3, 1)), "grain 4000 .* behind the capacity", None),
            (lambda s: s.set(1661, s.entry(3, 1)), "grain 1661 .* behind the capacity", None),
            (lambda s: s.out.__delitem__(slice(-600, None)), "grain 900 .* truncated", 900)):
        sesparse_made(harm)
        _, said = check("disk.vmdk", code=2)
        self.assertRegex(said, word)
        answer, _ = check("disk.vmdk", "-r", "all")
        self.assertEqual(answer["corruptions-fixed"], 1)
        check("disk.vmdk")
        right = bytearray(content)
        if grain is not None:
            right[grain * 4096:grain * 4096 + 4096] = bytes(4096)
        with open("right", "wb") as f:
            f.write(right)
        platter("compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "right")
        # With maps that are kept it is refused, and said so.
        sesparse_made(both(harm, keep_maps))
        before = sha256("extent.vmdk")
        _, said = check("disk.vmdk", "-r", "all", code=2)
        self.assertRegex(said, "tables are not repaired, for its free bitmap and back map")
        self.assertEqual(sha256("extent.vmdk"), before)


case("sesparse", sesparse)


def sesparse_stays(self):
    """What one cannot tell is left as it is, and found again."""
    def senseless(se):
        for grain in range(30, 60):
            se.set(grain, 5 << 60)
    for harm, word in ((lambda s: s.set(2, s.entry(3, 1)), "grain 2 .* where another grain is"),
                       (lambda s: put_le(s.out, s.gde_at(0), 7), "grain directory|grain table"),
                       (senseless, "grain 30 .* no known type; it is left as it is")):
        sesparse_made(harm)
        before = sha256("extent.vmdk")
        check("disk.vmdk", code=2)
        _, said = check("disk.vmdk", "-r", "all", code=2)
        self.assertRegex(said, word)
        self.assertIn("left as it is", said)
        self.assertEqual(sha256("extent.vmdk"), before)


case("sesparse_stays", sesparse_stays)


def sesparse_table_twice(self):
    """One table for two ranges: what would be wrong in the second is not taken from the first."""
    se = esx.SeSparse(2 * 32768 + 80)
    se.add_all(random.Random(4).randbytes(900 * 4096), [0, 1, 50, 800])
    put_le(se.out, se.gde_at(2), le(se.out, se.gde_at(0), 8), 8)
    esx_disk(se.image(), "seSparse", "SESPARSE", 2 * 32768 + 80)
    before = sha256("extent.vmdk")
    for options in ((), ("-r", "all")):
        answer, said = check("disk.vmdk", *options, code=2)
        self.assertEqual((answer["corruptions"], answer["allocated-clusters"]), (1, 4))
        self.assertIn("entries 0 and 2 of the grain directory both name the table", said)
        self.assertEqual(sha256("extent.vmdk"), before)


case("sesparse_table_twice", sesparse_table_twice)


def sesparse_table_often(self):
    """A full table that ten thousand entries name is judged once."""
    ranges = 10000
    se = esx.SeSparse(ranges * 32768, tables=1, grains=5000, bitmap=False)
    for grain in range(4096):
        se.set(grain, se.entry(3, grain))
    for i in range(1, ranges):
        put_le(se.out, se.gde_at(i), le(se.out, se.gde_at(0), 8), 8)
    esx_disk(se.image(), "seSparse", "SESPARSE", ranges * 32768)
    os.truncate("extent.vmdk", len(se.out) + 4096 * 4096)
    code, said = measured("check", "-f", "vmdk", "disk.vmdk")
    self.assertEqual(code, 2, said)
    self.assertIn(f"{ranges - 1} errors were found", said)


case("sesparse_table_often", sesparse_table_often)


def sesparse_last_grain(self):
    """A file that ends where the disk does, inside of a grain, lacks nothing, whatever its capacity."""
    se = esx.SeSparse(24).add_all(random.Random(5).randbytes(24 * SECTOR), range(3))
    for end, code in ((5, 0), (6, 2)):
        esx_disk(se.image()[:-end * SECTOR], "seSparse", "SESPARSE", 19)
        answer, said = check("disk.vmdk", code=code)
        self.assertEqual(answer["allocated-clusters"], 2 + (code == 0))
        if code:
            self.assertRegex(said, "grain 2 .* truncated")


case("sesparse_last_grain", sesparse_last_grain)


def esx_line_too_long(self):
    """The line gives way: the header is not written as if it were that of a hosted file."""
    se = esx.SeSparse(ESX_SECTORS).add_all(random.Random(4).randbytes(4096 * 3), range(3))
    for kind, word, extent in (("vmfsSparse", "VMFSSPARSE", cowd().image()),
                               ("seSparse", "SESPARSE", se.image())):
        esx_disk(extent, kind, word, ESX_SECTORS + 8)
        before = sha256("extent.vmdk")
        check("disk.vmdk", code=2)
        _, said = check("disk.vmdk", "-r", "all")
        self.assertIn("the line of the descriptor was changed", said)
        self.assertEqual(sha256("extent.vmdk"), before)
        check("disk.vmdk")


case("esx_line_too_long", esx_line_too_long)


def cowd_unclean(self):
    """A mark that was left behind is told of, and goes with a repair."""
    image = cowd().image()
    esx.put_cowd(image, "uncleanShutdown", 1)
    esx_disk(image, "vmfsSparse", "VMFSSPARSE")
    before = sha256("extent.vmdk")
    answer, said = check("disk.vmdk")
    self.assertIn("not closed by whoever wrote it last (header offset 1648)", said)
    self.assertEqual(sha256("extent.vmdk"), before)
    check("disk.vmdk", "-r", "leaks")
    esx.put_cowd(image, "uncleanShutdown", 0)
    with open("extent.vmdk", "rb") as f:
        self.assertEqual(f.read(), bytes(image))


case("cowd_unclean", cowd_unclean)


def memory(self):
    """With little memory it takes longer; with too little it says so."""
    image = bases.damaged("sparse", set_gte(DATA[3], 0, "both"))
    for most in ("4M", "1G"):
        self.assertEqual(check(image, f"--memory={most}", code=3)[0]["leaks"], 1)
    _, said = check_fails(image, "--memory=1k")
    self.assertIn("memory", said)


def check_fails(image, *options):
    done = platter("check", *options, "-f", "vmdk", image, code=1)
    return done.stdout, done.stderr


case("memory", memory)


def written(self):
    """Images that were written, grown, committed into: nothing is found that is not there."""
    kinds = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")
    for kind in (*kinds, "vmfs", "streamOptimized"):
        platter("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", bases.path("raw"),
                f"{kind}.vmdk")
        check(f"{kind}.vmdk", "--data")
    for kind in kinds:
        image = f"{kind}.vmdk"
        for call in ("write -P 3 100k 3M", "write -z 200k 1M", "write -P 4 50M 70k"):
            run("qemu-io", "-f", "vmdk", "-c", call, image)
            check(image)
        run(POKE, image, "vmdk", bases.path("raw"), input="write 20000000 99999 5\n"
            "zero 30000000 999999\ndiscard 1048576 2097152\nwrite 61865984 131072 6\n")
        check(image)
        platter("create", "-f", "vmdk", "-b", image, "-F", "vmdk", "top.vmdk")
        run(POKE, "top.vmdk", "vmdk", bases.path("raw"), input="write 100 300000 7\n")
        check("top.vmdk")
        platter("commit", "top.vmdk")
        check("top.vmdk")
        check(image)
        run(POKE, "top.vmdk", "vmdk", bases.path("raw"), input="write 100 3000000 7\n")
        platter("resize", "top.vmdk", "5G")  # its tables stand behind its grains then
        run(POKE, "top.vmdk", "vmdk", bases.path("raw"), input="write 4000000000 3000000 7\n")
        platter("commit", "top.vmdk")
        answer, said = check("top.vmdk")
        self.assertEqual((answer.get("leaks", 0), said), (0, ""))
        self.assertLess(os.stat("top.vmdk").st_blocks * 512, MIB)
        check(image)
        platter("resize", image, "6G")
        answer, said = check(image)
        self.assertEqual(said, "")


case("written", written)


def sound(self):
    """The undamaged images are; and what the peer says of them we say, too."""
    for base in ("sparse", "front", "stream"):
        answer, said = check(bases.path(base), "--data")
        theirs = json.loads(qemu_img("check", "--output=json", "-f", "vmdk",
                                     bases.path(base)).stdout)
        self.assertEqual({k: answer[k] for k in theirs}, theirs)
        self.assertEqual(answer["allocated-clusters"], len(DATA))
        self.assertEqual(answer["total-clusters"], 1281)
        self.assertEqual(answer.get("compressed-clusters", 0), 0 if base == "sparse" else len(DATA))
        self.assertEqual(said, "")


case("sound", sound)


def same_verdict(self):
    """Where the peer sees damage it fails; we say what it is."""
    image = bases.damaged("sparse", set_gte(4, FAR, "both"))
    qemu_img("check", image, code=1)
    check(image, code=2)


case("same_verdict", same_verdict)


main()
