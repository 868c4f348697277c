# SPDX-License-Identifier: MIT
"""COWD and seSparse: what qemu-img reads out of files laid out by hand is what we read; damage is an
error; and what we write in place can be read by both, and keeps what is not known."""
import functools
import os
import random
import shutil

import craft_esx as esx
from craft import SECTOR, le, put_le
from craft_esx import Cowd, SeSparse
from harm import Harm
from peers import KIB, MIB, Failed, add_case, main, platter, qemu_img, run, sha256, POKE

COWD_CAPACITY = 3 * 4096 + 1000  # sectors: four tables of grains of one sector
SE_CAPACITY = 2 * 32768 + 1003   # three tables, and a last grain that is not whole


def noise(count, seed=1):
    return random.Random(seed).randbytes(count * SECTOR)


def save(name, data):
    with open(name, "wb") as f:
        f.write(data)


def load(name):
    with open(name, "rb") as f:
        return bytearray(f.read())


def cowd_of(content, grain=1, seed=1, **how):
    """Half of the grains, in any order."""
    count = esx.ceil(len(content) // SECTOR, grain)
    rng = random.Random(seed)
    numbers = rng.sample(range(count), count // 2)
    runs = [n for start in rng.sample(range(count), 3) for n in range(start, min(count, start + 70))]
    chosen = list(dict.fromkeys([0, count - 1, *runs, *numbers]))
    if grain > 1:  # tables of 4096 entries hold all of it
        rng.shuffle(chosen)
    image = Cowd(len(content) // SECTOR, grain, **how).add_all(content, chosen)
    return image, chosen


def shown(content, chosen, size, below=b""):
    """What a disk shows that holds some of its grains."""
    out = bytearray(below[:len(content)].ljust(len(content), b"\0"))
    for number in chosen:
        out[number * size:(number + 1) * size] = content[number * size:(number + 1) * size]
    return bytes(out)


def disk(name, capacity, word="VMFSSPARSE", kind="vmfsSparse", image="disk-delta.vmdk", **more):
    save(name, esx.text(kind, [f'RW {capacity} {word} "{image}"'], **more))


class Reads(Harm):
    def agrees(self, content, image="disk.vmdk"):
        save("right.raw", content)
        self.check_read(image, "vmdk", "right.raw")
        self.expect_good(image, "vmdk", "right.raw")


def cowd_grain(self, grain, gd):
    content = noise(COWD_CAPACITY)
    image, chosen = cowd_of(content, grain, gd=gd)
    save("disk-delta.vmdk", image.image())
    disk("disk.vmdk", COWD_CAPACITY)
    self.agrees(shown(content, chosen, grain * SECTOR))


class Cowds(Reads):
    def over_base(self, size, base_size):
        """A delta over a vmfs disk; what reaches over its end is zero."""
        content, below = noise(size, 2), noise(base_size, 3)
        save("base-flat.vmdk", below)
        save("base.vmdk", esx.text("vmfs", [f'RW {base_size} VMFS "base-flat.vmdk"'], cid="abcd"))
        image, chosen = cowd_of(content)
        save("disk-delta.vmdk", image.image())
        disk("disk.vmdk", size, parent="base.vmdk", parent_cid="abcd")
        return shown(content, chosen, SECTOR, below)

    def test_over_vmfs(self):
        self.agrees(self.over_base(5000, 5000))

    def test_over_a_shorter_base(self):
        self.agrees(self.over_base(5000, 3333))

    def test_several_extents_over_a_base(self):
        """The parent covers the whole disk, not each extent."""
        sizes, below = [4096, 777, 5000], noise(4096 + 777 + 5000, 5)
        save("base-flat.vmdk", below)
        save("base.vmdk", esx.text("vmfs", [f'RW {sum(sizes)} VMFS "base-flat.vmdk"'], cid="1"))
        right, lines, at = b"", [], 0
        for i, size in enumerate(sizes):
            content = noise(size, 10 + i)
            image, chosen = cowd_of(content, seed=i)
            save(f"disk-{i}.vmdk", image.image())
            lines.append(f'RW {size} {"SPARSE" if i == 1 else "VMFSSPARSE"} "disk-{i}.vmdk"')
            right += shown(content, chosen, SECTOR, below[at:at + size * SECTOR])
            at += size * SECTOR
        save("disk.vmdk", esx.text("vmfsSparse", lines, parent="base.vmdk", parent_cid="1"))
        save("right.raw", right)
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        qemu_img("compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "right.raw")

    def test_grain_of_three_sectors(self):
        """No power of two: read and written."""
        content = noise(20000)
        image, chosen = cowd_of(content, 3)
        save("disk-delta.vmdk", image.image())
        disk("disk.vmdk", 20000)
        save("right.raw", shown(content, chosen, 3 * SECTOR))
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        written = bytearray(shown(content, chosen, 3 * SECTOR))
        written[5000:5000 + 70000] = bytes(70000)
        save("pattern", bytes(70000))
        save("right.raw", bytes(written))
        run(POKE, "disk.vmdk", "vmdk", "pattern", input="write 5000 70000 0\nflush\n")
        self.expect_good("disk.vmdk", "vmdk", "right.raw")

    def test_delta_of_a_delta(self):
        right = self.over_base(5000, 5000)
        content = noise(5000, 77)
        image, chosen = cowd_of(content, seed=9)
        save("top-delta.vmdk", image.image())
        disk("top.vmdk", 5000, image="top-delta.vmdk", parent="disk.vmdk", parent_cid="12345678",
             cid="99")
        self.agrees(shown(content, chosen, SECTOR, right), "top.vmdk")

    def test_directory_fills_its_sector(self):
        """As many entries as that has room for are counted, though the disk takes fewer."""
        content = noise(5000)
        image, chosen = cowd_of(content)
        image = image.image()
        esx.put_cowd(image, "numGDEntries", 128)
        save("disk-delta.vmdk", image)
        disk("disk.vmdk", 5000)
        self.agrees(shown(content, chosen, SECTOR))

    def test_alone(self):
        """Opened without its descriptor: a disk without a parent."""
        content = noise(5000)
        image, chosen = cowd_of(content)
        save("disk-delta.vmdk", image.image())
        save("right.raw", shown(content, chosen, SECTOR))
        self.expect_good("disk-delta.vmdk", "vmdk", "right.raw")


for cowd_grain_size, cowd_gd in ((1, 4), (1, 9), (8, 4), (128, 4), (2048, 20)):
    add_case(Cowds, f"cowd_grain_{cowd_grain_size}_directory_{cowd_gd}", cowd_grain,
             cowd_grain_size, cowd_gd)


class SeSparses(Reads):
    def image(self, content, seed=1, below=b"", **how):
        """All kinds of entries; what the disk shows."""
        rng = random.Random(seed)
        capacity = len(content) // SECTOR
        count = esx.ceil(capacity, 8)
        image = SeSparse(capacity, **how)
        runs = [n for start in rng.sample(range(count), 4)
                for n in range(start, min(count, start + 90))]
        chosen = list(dict.fromkeys([count - 1, *runs, 0, 5, 4, 4095, 4096]))
        image.add_all(content, chosen)
        zeros = [n for n in rng.sample(range(count), 40) if n not in chosen]
        for i, number in enumerate(zeros):
            (image.unmapped if i % 2 else image.zeroed)(number)
        right = bytearray(shown(content, chosen, esx.SE_GRAIN, below))
        for number in zeros:
            end = min(len(right), (number + 1) * esx.SE_GRAIN)
            right[number * esx.SE_GRAIN:end] = bytes(end - number * esx.SE_GRAIN)
        return image, bytes(right)

    def make(self, content, **how):
        image, right = self.image(content, **how)
        save("disk-sesparse.vmdk", image.image())
        disk("disk.vmdk", len(content) // SECTOR, "SESPARSE", "seSparse", "disk-sesparse.vmdk")
        return right

    def test_all_kinds(self):
        self.agrees(self.make(noise(SE_CAPACITY)))

    def test_areas_as_esx_lays_them_out(self):
        self.agrees(self.make(noise(204800, 4), align=2048))

    def test_high_indexes(self):
        """The low twelve bits of an index stand above the others."""
        content = noise(80, 6)
        image = SeSparse(80, grains=100000)
        for number, index in enumerate((4095, 4096, 4097, 8191, 70000, 99999, 0, 1, 65536, 12345)):
            image.add(number, content[number * 4096:(number + 1) * 4096], index)
        save("disk-sesparse.vmdk", image.image())
        disk("disk.vmdk", 80, "SESPARSE", "seSparse", "disk-sesparse.vmdk")
        self.agrees(content)

    def test_over_vmfs(self):
        content, below = noise(40000, 7), noise(33333, 8)
        save("base-flat.vmdk", below)
        save("base.vmdk", esx.text("vmfs", ['RW 33333 VMFS "base-flat.vmdk"'], cid="77"))
        image, right = self.image(content, below=below)
        save("disk-sesparse.vmdk", image.image())
        disk("disk.vmdk", 40000, "SESPARSE", "seSparse", "disk-sesparse.vmdk", parent="base.vmdk",
             parent_cid="77")
        self.agrees(right)

    def test_alone(self):
        right = self.make(noise(SE_CAPACITY))
        save("right.raw", right)
        self.expect_good("disk-sesparse.vmdk", "vmdk", "right.raw")


# ---- damage ----------------------------------------------------------------------------------------

class DamagedCowd(Harm):
    @classmethod
    def setUpClass(cls):
        cls.cowd, _ = cowd_of(noise(COWD_CAPACITY))

    def setUp(self):
        super().setUp()
        disk("disk.vmdk", COWD_CAPACITY)

    def refused(self, damage, *words):
        image = self.cowd.image()
        changed = damage(image)
        save("disk-delta.vmdk", image if changed is None else changed)
        before = sha256("disk-delta.vmdk")
        done = platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "target", code=1)
        for word in ("disk-delta.vmdk", *words):
            self.assertRegex(done.stderr, word)
        self.assertFalse(os.path.exists("target"))
        self.assertEqual(sha256("disk-delta.vmdk"), before)

    def test_capacity_beyond_directory(self):
        self.refused(lambda i: esx.put_cowd(i, "numSectors", 1 << 31), "directory", "entries")

    def test_hosted_disk_of_old(self):
        """A directory for tables of 512 entries."""
        self.refused(lambda i: esx.put_cowd(i, "numGDEntries", esx.ceil(COWD_CAPACITY, 512)),
                     "VMDK 3")

    def test_a_table_of_another(self):
        """Grains may not stand in any table, near or far."""
        for grain in (0, 5000, 9999):
            for table in range(4):
                for within in (0, 17, 31):
                    def damage(i, grain=grain, table=table, within=within):
                        put_le(i, self.cowd.entry_at(grain), self.cowd.tables[table] + within)
                    self.refused(damage, f"grain {grain}", "table|metadata")

    def test_grain_in_metadata(self):
        for sector in (1, 2, 3, 4):
            self.refused(lambda i, s=sector: put_le(i, self.cowd.entry_at(77), s), "grain 77",
                         f"sector {sector}", "metadata")

    def test_grain_behind_end(self):
        for sector in (len(self.cowd.image()) // SECTOR, 1 << 31, (1 << 32) - 1):
            self.refused(lambda i, s=sector: put_le(i, self.cowd.entry_at(4100), s), "grain 4100",
                         "end")

    def test_table_nowhere(self):
        for sector in (1, 3, 4, len(self.cowd.image()) // SECTOR - 31, (1 << 32) - 1):
            self.refused(lambda i, s=sector: put_le(i, 4 * SECTOR + 8, s), "directory entry 2")

    def test_cut(self):
        image = self.cowd.image()
        for end in (0, 3, 100, 2047, 2048, 2050, len(image) // 2, len(image) - 1):
            self.refused(lambda i, end=end: i[:end])

    def test_bits(self):
        """Bits of the header: an error, or the same; but for the size of grains and the place of the
        directory, of which others may be as good."""
        content = noise(4096 + 100)
        cowd, chosen = cowd_of(content)
        right = shown(content, chosen, SECTOR)
        disk("disk.vmdk", 4096 + 100)
        for at in [*range(4, 32), *range(1056, 1064), *range(1648, 1652)]:
            for bit in (0, 3, 4, 7):
                image = cowd.image()
                image[at] ^= 1 << bit
                save("disk-delta.vmdk", image)
                self.judge_file(right, 16 <= at < 24)

    def judge_file(self, right, anything):
        done = platter("convert", "-q", "-f", "vmdk", "-O", "raw", "disk.vmdk", "target",
                       code={0, 1})
        if done.returncode == 0:
            self.assertTrue(anything or load("target") == right)
            os.unlink("target")
        else:
            self.assertIn("disk-delta.vmdk", done.stderr)


def cowd_field(self, name, value, *words):
    self.refused(lambda i: esx.put_cowd(i, name, value), *words)


for cowd_name, cowd_value, *cowd_words in (
        ("version", 0, "version"), ("version", 2, "version"), ("numSectors", 0, "capacity"),
        ("numSectors", 4096, "capacity|entries"), ("grainSize", 0, "grain size"),
        ("grainSize", 0x200001, "grain size"), ("grainSize", 0xffffffff, "grain size"),
        ("gdOffset", 0, "directory"), ("gdOffset", 3, "directory"),
        ("gdOffset", 0xffffffff, "directory"), ("numGDEntries", 0, "directory", "entries"),
        ("numGDEntries", 3, "directory", "entries"), ("numGDEntries", 129, "directory", "entries"),
        ("numGDEntries", 0xffffffff, "directory", "entries")):
    add_case(DamagedCowd, f"{cowd_name}_{cowd_value}", cowd_field, cowd_name, cowd_value,
             *cowd_words)


@functools.cache
def se_content():
    return noise(SE_CAPACITY)


class DamagedSeSparse(Harm):
    def setUp(self):
        super().setUp()
        self.content = se_content()
        self.chosen = [0, 1, 2, 3, 50, 4096, 5000, 8191, 8192]
        self.se = SeSparse(SE_CAPACITY).add_all(self.content, self.chosen)
        disk("disk.vmdk", SE_CAPACITY, "SESPARSE", "seSparse", "disk-sesparse.vmdk")

    def refused(self, *words, at=None):
        image = self.se.image() if at is None else self.se.image()[:at]
        save("disk-sesparse.vmdk", image)
        before = sha256("disk-sesparse.vmdk")
        done = platter("convert", "-f", "vmdk", "-O", "raw", "disk.vmdk", "target", code=1)
        for word in ("disk-sesparse.vmdk", *words):
            self.assertRegex(done.stderr, word)
        self.assertFalse(os.path.exists("target"))
        self.assertEqual(sha256("disk-sesparse.vmdk"), before)

    def test_good(self):
        save("disk-sesparse.vmdk", self.se.image())
        save("right.raw", shown(self.content, self.chosen, esx.SE_GRAIN))
        self.expect_good("disk.vmdk", "vmdk", "right.raw")

    def test_reserved_and_padding(self):
        for at in (*(esx.SE_HEADER[f"reserved{i}"] for i in range(1, 5)), 208, 300, 511):
            self.se.out[at] = 1
            self.refused("reserved|padding")
            self.se.out[at] = 0

    def test_volatile_header(self):
        for name, value, word in (("magic", 0xcafebabe, "volatile"), ("replayJournal", 1, "journal"),
                                  ("padding", 1, "padding")):
            old = le(self.se.out, SECTOR + esx.SE_VOLATILE[name], 8)
            self.se.put_volatile(name, value)
            self.refused(word)
            self.se.put_volatile(name, old)

    def test_areas(self):
        """Out of the file, on top of each other, too short, too long."""
        for area in esx.SE_AREAS:
            at, size = self.se.areas[area]
            for where, long in ((0, size), (at, 1 << 63), (1 << 63, size), (1 << 54, 1 << 54),
                                (10 ** 7, size), ((1 << 64) - 1, (1 << 64) - 1)):
                if (area, where) == ("grains", 10 ** 7):
                    continue  # they may stand anywhere
                self.se.put(f"{area}Offset", where)
                self.se.put(f"{area}Size", long)
                self.refused("area")
            self.se.put(f"{area}Offset", at)
            self.se.put(f"{area}Size", size)
        for area, other in zip(esx.SE_AREAS, esx.SE_AREAS[1:]):
            self.se.put(f"{other}Offset", self.se.areas[area][0])
            self.refused("overlap")
            self.se.put(f"{other}Offset", self.se.areas[other][0])
            at, size = self.se.areas[area]
            self.se.put(f"{area}Size", self.se.areas[other][0] - at + 1)
            self.refused("overlap")
            self.se.put(f"{area}Size", size)

    def test_directory_is_one_entry_short(self):
        entries = self.se.areas["grainDirectory"][1] * SECTOR // 8
        self.se.put("capacity", entries * 32768 + 1)
        self.refused("grain directory", f"{entries + 1} entries")

    def test_grain_over_the_end_of_its_area(self):
        """The last may reach over it only where nothing stands behind."""
        at = self.se.areas["grains"][0]
        self.se.put("grainsSize", 12)
        self.se.put("journalOffset", at + 12)
        self.refused(r"grain 1 \(", "no grain of this file")

    def test_grain_behind_its_area(self):
        """It is in the file all the same."""
        count = self.se.areas["grains"][1] // 8
        self.se.out += bytes((self.se.areas["grains"][0] + (count + 2) * 8) * SECTOR - len(self.se.out))
        self.se.set(50, esx.SeSparse.entry(3, count))
        self.refused("grain 50", "no grain of this file")

    def test_directory_entries(self):
        for value in (1, 0x10000000 << 32 | 3, 0x10000000 << 32 | 0xffffffff, 0x20000000 << 32,
                      0x10000001 << 32, (1 << 64) - 1):
            old = le(self.se.out, self.se.gde_at(1), 8)
            put_le(self.se.out, self.se.gde_at(1), value, 8)
            self.refused("directory entry 1", f"byte {self.se.gde_at(1)}")
            put_le(self.se.out, self.se.gde_at(1), old, 8)

    def test_entries(self):
        last = esx.ceil(SE_CAPACITY, 8)
        for value in (1, 1 << 59, 4 << 60, 15 << 60, esx.SeSparse.entry(3, last + 8),
                      esx.SeSparse.entry(3, (1 << 60) - 1), esx.SeSparse.entry(3, 1 << 58)):
            old = le(self.se.out, self.se.entry_at(50), 8)
            self.se.set(50, value)
            self.refused("grain 50", f"0x{value:016x}")
            self.se.set(50, old)

    def test_grain_behind_end(self):
        self.se.set(50, esx.SeSparse.entry(3, len(self.chosen)))
        self.refused("grain 50", "end")

    def test_cut(self):
        size = len(self.se.image())
        for end in (0, 7, 100, 511, 512, 1000, 4096, size // 2, size - esx.SE_GRAIN, size - 1):
            self.refused(at=end)


def se_field(self, name, value, *words):
    self.se.put(name, value)
    self.refused(*words)


for se_name, se_value, *se_words in (
        ("version", 0x200000002, "version"), ("version", 1, "version"), ("capacity", 0, "capacity"),
        ("capacity", 1 << 63, "capacity|directory"), ("capacity", 10 ** 9, "directory"),
        ("grainSize", 0, "grains"), ("grainSize", 16, "grains"),
        ("grainTableSize", 0, "grain tables"), ("grainTableSize", 4, "grain tables"),
        ("flags", 1, "flags")):
    add_case(DamagedSeSparse, f"{se_name}_{se_value}", se_field, se_name, se_value, *se_words)


# ---- writing ---------------------------------------------------------------------------------------

class Writes(Harm):
    def settle(self, image):
        """The shadow: what the image shows now."""
        platter("convert", "-f", "vmdk", "-O", "raw", image, "shadow.raw")

    def verify(self, image):
        qemu_img("compare", "-f", "vmdk", "-F", "raw", image, "shadow.raw")
        self.expect_good(image, "vmdk", "shadow.raw")

    def poked(self, image, seeds=2):
        self.settle(image)
        for seed in range(seeds):
            self.poke(image, "vmdk", "shadow.raw", seed, count=48)
            self.verify(image)

    def poke_fails(self, image, line, *words, begun=False):
        """Nothing is changed, the descriptor neither: its children still fit. `begun`: only trying
        told that it cannot be."""
        save("pattern", noise(64))
        there = {name: sha256(name) for name in os.listdir(".")}
        done = run(POKE, image, "vmdk", "pattern", input=line + "\n", code=1)
        for word in words:
            self.assertRegex(done.stderr, word)
        for name, digest in there.items():
            if name != image or not begun:
                self.assertEqual(sha256(name), digest, f"{name} was changed")


class WrittenCowd(Writes):
    UNKNOWN = [(32, 1060), (1064, 1648), (1652, 2048)]

    def judge(self, name, old):
        """The header after a clean end."""
        image = load(name)
        used = 0
        gd = le(image, 20) * SECTOR
        for table in esx.numbers(image, gd, le(image, 24)):
            entries = esx.numbers(image, table * SECTOR, 4096) if table else ()
            used = max(used, table + 32 if table else 0,
                       *(e + le(image, 16) if e else 0 for e in entries), 0)
        self.assertGreaterEqual(le(image, 28), used, "freeSector")
        self.assertGreaterEqual(le(image, 28), len(image) // SECTOR, "freeSector")
        self.assertEqual(le(image, 1648), 0, "uncleanShutdown")
        self.assertGreater(le(image, 1060), le(old, 1060), "generation")
        for start, end in self.UNKNOWN:
            self.assertEqual(image[start:end], old[start:end])

    def run_grain(self, grain, parent):
        content = noise(COWD_CAPACITY)
        image, _ = cowd_of(content, grain)
        save("disk-delta.vmdk", image.image())
        more = {}
        if parent:
            save("base-flat.vmdk", noise(COWD_CAPACITY, 99))
            save("base.vmdk", esx.text("vmfs", [f'RW {COWD_CAPACITY} VMFS "base-flat.vmdk"'],
                                       cid="77"))
            more = {"parent": "base.vmdk", "parent_cid": "77"}
        disk("disk.vmdk", COWD_CAPACITY, **more)
        self.poked("disk.vmdk")
        self.judge("disk-delta.vmdk", image.image())

    def test_empty(self):
        """No table yet."""
        image = Cowd(3 * 4096 + 5).image()
        save("disk-delta.vmdk", image)
        disk("disk.vmdk", 3 * 4096 + 5)
        self.poked("disk.vmdk")
        self.judge("disk-delta.vmdk", image)

    def test_several_extents(self):
        lines, sizes = [], [5000, 4099, 777]
        olds = []
        for i, size in enumerate(sizes):
            olds.append(cowd_of(noise(size, i), seed=i)[0].image())
            save(f"disk-{i}.vmdk", olds[i])
            lines.append(f'RW {size} VMFSSPARSE "disk-{i}.vmdk"')
        save("disk.vmdk", esx.text("vmfsSparse", lines))
        self.poked("disk.vmdk")
        for i in range(3):
            self.judge(f"disk-{i}.vmdk", olds[i])

    def test_free_sector_behind_the_truth(self):
        """As QEMU leaves it: it is put right."""
        image = cowd_of(noise(5000))[0].image()
        esx.put_cowd(image, "freeSector", 5)
        save("disk-delta.vmdk", image)
        disk("disk.vmdk", 5000)
        self.poked("disk.vmdk", 1)
        self.judge("disk-delta.vmdk", image)

    def test_unclean_before(self):
        """Whoever left the mark has not looked at the image since: it stays."""
        image = cowd_of(noise(5000))[0].image()
        esx.put_cowd(image, "uncleanShutdown", 1)
        save("disk-delta.vmdk", image)
        disk("disk.vmdk", 5000)
        self.poked("disk.vmdk", 1)
        self.assertEqual(le(load("disk-delta.vmdk"), 1648), 1)

    def test_free_sector_behind_the_end(self):
        image = cowd_of(noise(5000))[0].image()
        esx.put_cowd(image, "freeSector", 1 << 31)
        save("disk-delta.vmdk", image)
        disk("disk.vmdk", 5000)
        self.poked("disk.vmdk", 1)
        self.judge("disk-delta.vmdk", image)
        self.assertLess(le(load("disk-delta.vmdk"), 28), 1 << 20)

    def test_two_ranges_on_one_table(self):
        image, _ = cowd_of(noise(5000))
        put_le(image.out, 4 * SECTOR + 4, image.tables[0] + 31)
        save("disk-delta.vmdk", image.image())
        disk("disk.vmdk", 5000)
        self.poke_fails("disk.vmdk", "write 0 512 0", "overlap")

    def test_cut(self):
        """What is missing must not be filled with something else."""
        image = cowd_of(noise(5000))[0].image()
        save("disk-delta.vmdk", image[:-SECTOR])
        disk("disk.vmdk", 5000)
        self.poke_fails("disk.vmdk", "write 0 512 0", "end")

    def test_cut_in_its_last_grain(self):
        """freeSector is behind that, as where the disk ends in it; but it does not."""
        image = Cowd(1024, 16).add_all(noise(1024), [3, 7, 5]).image()
        save("disk-delta.vmdk", image[:-2 * SECTOR])
        disk("disk.vmdk", 1024)
        self.poke_fails("disk.vmdk", "write 0 512 0", "grain 5", "truncated")

    def test_cut_where_the_disk_ends(self):
        """The last grain is cut there, and freeSector knows nothing of its rest: nothing is put
        where that would be, for the disk may grow."""
        cut = 11 * SECTOR
        image = Cowd(10 * 16 - 11, 16).add_all(noise(150), [3, 9])
        save("disk-delta.vmdk", image.image()[:-cut])
        put = load("disk-delta.vmdk")
        esx.put_cowd(put, "freeSector", len(put) // SECTOR)
        save("disk-delta.vmdk", put)
        disk("disk.vmdk", 10 * 16 - 11)
        self.settle("disk.vmdk")
        save("pattern", noise(16, 9))
        run(POKE, "disk.vmdk", "vmdk", "pattern", input=f"write 0 {16 * SECTOR} 0\n")
        shadow = noise(16, 9) + load("shadow.raw")[16 * SECTOR:]
        save("shadow.raw", shadow)
        self.verify("disk.vmdk")
        platter("check", "disk.vmdk")
        platter("resize", "disk.vmdk", 10 * 16 * SECTOR)
        save("shadow.raw", shadow + bytes(cut))
        self.verify("disk.vmdk")


def cowd_written(self, grain, parent):
    self.run_grain(grain, parent)


for written_grain in (1, 4, 128):
    for written_parent in (False, True):
        add_case(WrittenCowd, f"grain_{written_grain}_{'over' if written_parent else 'alone'}",
                 cowd_written, written_grain, written_parent)


class WrittenSeSparse(Writes):
    CAPACITY = 2 * 32768 + 64

    def make(self, change=None, **how):
        se = SeSparse(self.CAPACITY, **how).add_all(noise(self.CAPACITY), [0, 1, 2, 9, 8, 4000])
        se.unmapped(20)
        se.zeroed(21)
        if change:
            change(se)
        save("disk-sesparse.vmdk", se.image())
        disk("disk.vmdk", self.CAPACITY, "SESPARSE", "seSparse", "disk-sesparse.vmdk")
        return se

    def judge(self, old):
        """What is not known stays; indexes are used once, tables in turn."""
        image = load("disk-sesparse.vmdk")
        self.assertEqual(image[:SECTOR + 8], old.out[:SECTOR + 8])
        self.assertEqual(image[SECTOR + 16:3 * SECTOR], old.out[SECTOR + 16:3 * SECTOR])
        gd, gt = old.areas["grainDirectory"][0], old.areas["grainTables"][0]
        tables = [e & 0xffffffff for e in esx.numbers(image, gd * SECTOR, 3, 8) if e]
        self.assertEqual(le(image, SECTOR + 8, 8), max(tables) + 1, "freeGTNumber")
        seen = [0]
        for table in tables:
            for e in esx.numbers(image, (gt + 64 * table) * SECTOR, 4096, 8):
                if e >> 60 in (1, 3):
                    seen.append(1 + (e >> 48 & 0xfff | (e & 0xffffffffffff) << 12))
        self.assertEqual(len(seen), len(set(seen)), "an index is used twice")
        for area in ("journalHeader", "journal", "freeBitmap", "backMap"):
            at, size = old.areas[area]
            self.assertEqual(image[at * SECTOR:(at + size) * SECTOR],
                             old.out[at * SECTOR:(at + size) * SECTOR], area)

    def test_nobody_keeps_the_maps(self):
        old = self.make(grains=30000)
        self.poked("disk.vmdk")
        self.judge(old)

    def test_without_maps(self):
        old = self.make(grains=30000, bitmap=False)
        self.poked("disk.vmdk")
        self.judge(old)

    def test_over_a_base(self):
        old = self.make(grains=30000)
        save("base-flat.vmdk", noise(self.CAPACITY, 3))
        save("base.vmdk", esx.text("vmfs", [f'RW {self.CAPACITY} VMFS "base-flat.vmdk"'], cid="5"))
        disk("disk.vmdk", self.CAPACITY, "SESPARSE", "seSparse", "disk-sesparse.vmdk",
             parent="base.vmdk", parent_cid="5")
        self.poked("disk.vmdk")
        self.judge(old)

    def test_in_place_is_always_safe(self):
        """Also where the maps are kept."""
        def keep(se):
            for area in ("freeBitmap", "backMap"):
                put_le(se.out, se.areas[area][0] * SECTOR, 0xff)
        self.make(keep)
        self.settle("disk.vmdk")
        save("pattern", noise(64, 9))
        run(POKE, "disk.vmdk", "vmdk", "pattern", input="write 512 8192 0\nzero 36864 4096\nflush\n")
        shadow = load("shadow.raw")
        shadow[512:512 + 8192] = noise(64, 9)[:8192]
        shadow[36864:36864 + 4096] = bytes(4096)
        save("shadow.raw", shadow)
        self.verify("disk.vmdk")

    def test_maps_are_kept(self):
        for area in ("freeBitmap", "backMap"):
            for where in (0, -1):
                def keep(se, area=area, where=where):
                    at, size = se.areas[area]
                    se.out[(at + size * -where) * SECTOR + where] = 1
                self.make(keep)
                self.poke_fails("disk.vmdk", "write 20480 512 0", "free bitmap", "overlay")

    def test_maps_are_kept_over_a_base(self):
        """Zeros cannot be marked there either."""
        self.make(lambda se: put_le(se.out, se.areas["backMap"][0] * SECTOR, 0xff))
        save("base-flat.vmdk", noise(self.CAPACITY, 3))
        save("base.vmdk", esx.text("vmfs", [f'RW {self.CAPACITY} VMFS "base-flat.vmdk"'], cid="5"))
        disk("disk.vmdk", self.CAPACITY, "SESPARSE", "seSparse", "disk-sesparse.vmdk",
             parent="base.vmdk", parent_cid="5")
        self.poke_fails("disk.vmdk", "zero 20480 4096", "back map", "overlay")

    def test_no_grain_yet(self):
        save("disk-sesparse.vmdk", SeSparse(self.CAPACITY).image())
        disk("disk.vmdk", self.CAPACITY, "SESPARSE", "seSparse", "disk-sesparse.vmdk")
        self.poke_fails("disk.vmdk", "write 0 512 0", "no grain", "overlay")

    def test_table_behind_the_end(self):
        """Its grains are not looked at, and must not be taken for free."""
        self.make(lambda se: se.add(3 * esx.SE_GTES, noise(8)), tables=4, grains=30000)
        self.poke_fails("disk.vmdk", "write 20480 512 0", "behind the end", "overlay")

    def test_free_table_number_is_another(self):
        for number in (0, 3, 1 << 60):
            self.make(lambda se, number=number: se.put_volatile("freeGTNumber", number))
            self.poke_fails("disk.vmdk", f"write {40000 * SECTOR} 512 0", "freeGTNumber",
                            begun=True)

    def test_free_table_number_after_a_crash(self):
        old = self.make(lambda se: se.put_volatile("freeGTNumber", 2), grains=30000)
        self.poked("disk.vmdk", 1)
        self.judge(old)

    def test_grains_are_full(self):
        """An unmapped grain keeps its index."""
        self.make(grains=8)
        save("pattern", noise(64))
        run(POKE, "disk.vmdk", "vmdk", "pattern", input="write 20480 512 0\n")
        self.settle("disk.vmdk")
        self.poke_fails("disk.vmdk", "write 24576 512 0", "full", begun=True)
        self.verify("disk.vmdk")

    def test_tables_are_full(self):
        self.make(tables=1)
        self.poke_fails("disk.vmdk", f"write {40000 * SECTOR} 512 0", "grain tables", "full",
                        begun=True)

    def test_last_grain_is_not_whole(self):
        """In an area that is as long as the disk, nothing may be written behind its end."""
        capacity = 8 * 20 + 3
        se = SeSparse(capacity, align=1).add_all(noise(capacity), [0, 1])
        save("disk-sesparse.vmdk", se.image())
        disk("disk.vmdk", capacity, "SESPARSE", "seSparse", "disk-sesparse.vmdk")
        self.poked("disk.vmdk")


if __name__ == "__main__":
    main()
