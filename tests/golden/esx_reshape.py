# SPDX-License-Identifier: MIT
"""Resize, commit and rebase of COWD and seSparse files laid out by hand; qemu-img reads the result."""
import os

import craft_esx as esx
from craft import SECTOR, le
from craft_esx import Cowd, SeSparse
from esx import Reads, cowd_of, disk, load, noise, save, shown
from peers import MIB, main, platter, qemu_img, run, POKE

COWD_CAPACITY = 3 * 4096 + 1001


def read_field(image, name):
    at, length = esx.COWD_HEADER[name]
    return le(image, at, length)


class Reshapes(Reads):
    def agrees(self, content, image="disk.vmdk"):
        """The peer takes its time for each grain: in the middle of a large disk it looks here and
        there, across the borders of tables of grains of one sector."""
        save("right.raw", content)
        platter("compare", "-f", "vmdk", "-F", "raw", image, "right.raw")
        if len(content) < 16 * MIB:
            qemu_img("compare", "-f", "vmdk", "-F", "raw", image, "right.raw")
            return
        end = len(content) - 4 * MIB
        for start in (0, *range(4 * MIB, end, 32 * MIB), end):
            part = f"driver=raw,offset={start + SECTOR},size={4 * MIB - SECTOR},"
            qemu_img("compare", "--image-opts", f"{part}file.driver=vmdk,file.file.filename={image}",
                     f"{part}file.filename=right.raw")

    def base(self, size, seed=3):
        content = noise(size, seed)
        save("base-flat.vmdk", content)
        save("base.vmdk", esx.text("vmfs", [f'RW {size} VMFS "base-flat.vmdk"'], cid="abcd1234"))
        return content

    def cowd(self, size, grain=1, below=b"", **how):
        content = noise(size)
        image, chosen = cowd_of(content, grain, **how)
        save("disk-delta.vmdk", image.image())
        more = {"parent": "base.vmdk", "parent_cid": "abcd1234"} if below else {}
        disk("disk.vmdk", size, **more)
        return shown(content, chosen, grain * SECTOR, below)

    def is_now(self, right, sectors):
        """The disk reads as `right` and zeros behind it, and can be written and read on."""
        right = bytes(right).ljust(sectors * SECTOR, b"\0")
        last = noise(8, 99)
        save("pattern", last)
        run(POKE, "disk.vmdk", "vmdk", "pattern",
            input=f"write {len(right) - 8 * SECTOR} {8 * SECTOR} 0\n")
        self.agrees(right[:-8 * SECTOR] + last)


class CowdResize(Reshapes):
    def grow(self, size, to, grain=1, below=b"", **how):
        right = self.cowd(size, grain, below, **how)
        platter("resize", "disk.vmdk", to * SECTOR)
        self.assertIn(f"RW {to} VMFSSPARSE".encode(), load("disk.vmdk"))
        image = load("disk-delta.vmdk")
        self.assertEqual(read_field(image, "numSectors"), to)
        self.assertEqual(read_field(image, "numGDEntries"), esx.ceil(to, 4096 * grain))
        self.assertGreaterEqual(read_field(image, "freeSector") * SECTOR, len(image))
        self.assertEqual(read_field(image, "savedGeneration"), 5)
        self.is_now(right, to)
        return image

    def test_in_its_tables(self):
        self.grow(COWD_CAPACITY, COWD_CAPACITY + 2000)

    def test_more_tables(self):
        image = self.grow(COWD_CAPACITY, COWD_CAPACITY + 10000)
        self.assertEqual(read_field(image, "gdOffset"), 4)

    def test_directory_moves(self):
        """One sector of it is for 256 MiB."""
        image = self.grow(COWD_CAPACITY, 130 * 4096)
        self.assertGreater(read_field(image, "gdOffset"), 4)

    def test_inside_a_grain(self):
        self.grow(5003, 5007, grain=8)
        self.grow(5003, 9001, grain=128)

    def test_over_a_longer_base(self):
        below = self.base(9000)
        self.grow(5003, 8000, below=below)
        self.grow(5003, 8000, grain=16, below=below)

    def test_too_large(self):
        self.cowd(5000)
        before = load("disk-delta.vmdk")
        done = platter("resize", "disk.vmdk", "2T", code=1)
        self.assertRegex(done.stderr, "COWD extent has less than 2 TiB")
        self.assertEqual(load("disk-delta.vmdk")[12:32], before[12:32])


class CowdLinks(Reshapes):
    def test_commit(self):
        right = self.cowd(5003, below=self.base(5003))
        full = os.path.getsize("disk-delta.vmdk")
        platter("commit", "disk.vmdk")
        save("right.raw", right)
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        self.expect_good("base.vmdk", "vmdk", "right.raw")
        self.assertLess(os.path.getsize("disk-delta.vmdk"), full // 10)
        self.is_now(right, 5003)

    def test_commit_grows_the_base(self):
        right = self.cowd(6000, below=self.base(4001))
        platter("commit", "disk.vmdk")
        self.assertEqual(os.path.getsize("base-flat.vmdk"), 6000 * SECTOR)
        save("right.raw", right)
        self.expect_good("base.vmdk", "vmdk", "right.raw")
        self.is_now(right, 6000)

    def test_rebase(self):
        right = self.cowd(5003, below=self.base(5003))
        save("other-flat.vmdk", noise(4000, 3)[:2000 * SECTOR] + noise(3000, 50))
        save("other.vmdk", esx.text("vmfs", ['RW 5000 VMFS "other-flat.vmdk"'], cid="77"))
        for parent in ("other.vmdk", "", "base.vmdk"):
            platter("rebase", "-b", parent, "disk.vmdk")
            self.agrees(right)
        self.is_now(right, 5003)


class SeSparseReshapes(Reshapes):
    def make(self, size, grains=None, tables=None, **more):
        content = noise(size, 11)
        image = SeSparse(size, grains=grains, tables=tables, align=2048)
        image.add_all(content, range(0, esx.ceil(size, 8), 3))
        save("disk-sesparse.vmdk", image.image())
        disk("disk.vmdk", size, "SESPARSE", "seSparse", "disk-sesparse.vmdk", **more)
        right = bytearray(size * SECTOR)
        for number in range(0, esx.ceil(size, 8), 3):
            at = number * 4096
            right[at:at + 4096] = content[at:at + 4096]
        return bytes(right[:size * SECTOR])

    def test_as_far_as_its_areas_go(self):
        right = self.make(5003, grains=40000)
        platter("resize", "disk.vmdk", 70001 * SECTOR)
        self.assertEqual(le(load("disk-sesparse.vmdk"), esx.SE_HEADER["capacity"], 8), 70001)
        right = right.ljust(70001 * SECTOR, b"\0")
        self.agrees(right)

    def test_no_further(self):
        right = self.make(5003)
        before = load("disk-sesparse.vmdk"), load("disk.vmdk")
        done = platter("resize", "disk.vmdk", "1G", code=1)
        self.assertRegex(done.stderr, "areas of this seSparse file")
        self.assertEqual((load("disk-sesparse.vmdk"), load("disk.vmdk")), before)
        self.agrees(right)

    def test_commit(self):
        """Its entries keep more than we know: it is not emptied."""
        self.base(5003)
        self.make(5003, parent="base.vmdk", parent_cid="abcd1234")
        platter("convert", "-O", "raw", "disk.vmdk", "right.raw")
        files = "disk.vmdk", "disk-sesparse.vmdk", "base.vmdk", "base-flat.vmdk"
        before = [load(name) for name in files]
        done = platter("commit", "disk.vmdk", code=1)
        self.assertRegex(done.stderr, "commit with -d")
        self.assertEqual([load(name) for name in files], before)
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        platter("commit", "-d", "disk.vmdk")
        self.expect_good("disk.vmdk", "vmdk", "right.raw")
        self.expect_good("base.vmdk", "vmdk", "right.raw")
        qemu_img("compare", "-f", "vmdk", "-F", "raw", "base.vmdk", "right.raw")


main()
