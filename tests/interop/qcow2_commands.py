# SPDX-License-Identifier: MIT
"""Every command that changes an image, over every shape of qcow2 that keeps its data in another way:
subclusters, a data file, one that is the disk as it is, and both. What a guest must see is kept in a
flat file; after each command both programs read that, and the peer finds no fault."""
import os
import random
import struct

from peers import KIB, MIB, Case, add_case, main, platter, qemu_img, qemu_io

# {0} is the image's name.
SHAPES = {
    "plain": "cluster_size=64k",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "data-file": "cluster_size=4k,data_file={0}.bin",
    "raw-data-file": "cluster_size=64k,data_file={0}.bin,data_file_raw=on",
    "subclusters-data-file": "cluster_size=16k,extended_l2=on,data_file={0}.bin",
    "subclusters-raw-data-file": "cluster_size=64k,extended_l2=on,data_file={0}.bin,"
                                 "data_file_raw=on",
    "large": "cluster_size=2M,refcount_bits=64",
}
SIZE = MIB + 3 * 512


class Commands(Case):
    """One test for each command and shape, added below."""

    def begin(self, shape):
        self.options = SHAPES[shape]
        self.extended = "extended" in self.options
        self.data = "data_file=" in self.options
        self.raw = "data_file_raw=on" in self.options
        self.rng = random.Random(shape)

    def make(self, name, size=SIZE, below=None, below_format="raw"):
        """An image with a bit of everything in it; returns what it shows."""
        flat = bytearray(size)
        backing = ["-b", below, "-F", below_format] if below else []
        self.rng.choice((platter, qemu_img))(
            "create", "-q", "-f", "qcow2", "-o", self.options.format(name), *backing,
            f"{name}.qcow2", size)
        if below:
            qemu_img("convert", "-O", "raw", f"{name}.qcow2", "shown.raw")
            with open("shown.raw", "rb") as file:
                flat[:] = file.read()
        for byte, off, length in ((1, 0, 5000), (2, 100 * KIB, 300 * KIB), (0, 150 * KIB, 64 * KIB),
                                  (3, 400 * KIB + 512, 3 * KIB), (0, 128 * KIB, 4 * KIB),
                                  (4, size - 70 * KIB, 70 * KIB)):
            self.write(name, flat, byte, off, length)
        return flat

    def write(self, name, flat, byte, off, length):
        verb = f"write -P {byte}" if byte else self.rng.choice(("write -z", "write -z -u"))
        qemu_io(f"{name}.qcow2", "qcow2", f"{verb} {off} {length}")
        flat[off:off + length] = bytes([byte]) * length

    def judge(self, flat, name="a"):
        image = f"{name}.qcow2"
        with open("flat.raw", "wb") as file:
            file.write(flat)
        qemu_img("check", "-q", image)
        qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", image, "flat.raw")
        platter("compare", "-q", "-f", "qcow2", "-F", "raw", image, "flat.raw")
        if self.raw:
            with open(f"{name}.bin", "rb") as file:
                self.assertEqual(file.read(), flat, "the data file is the disk")

    def below(self, name, size, byte=9):
        with open(name, "wb") as file:
            file.write(bytes([byte]) * size)


# ---- resize --------------------------------------------------------------------------------------


def grow(self):
    for how in ("off", "metadata", "falloc", "full"):
        flat = self.make("a")
        platter("resize", "-q", f"--preallocation={how}", "a.qcow2", 2 * MIB + 512)
        flat += bytes(2 * MIB + 512 - len(flat))
        self.judge(flat)
        if how == "off" and self.data:  # it takes no space before it is written
            self.assertLess(os.stat("a.bin").st_blocks * 512, SIZE + 128 * KIB)
        self.write("a", flat, 5, MIB, 200 * KIB)
        self.judge(flat)


def shrink_and_grow(self):
    flat = self.make("a")
    for size in (300 * KIB + 512, MIB, 512, 3 * MIB):
        platter("resize", "-q", "--shrink", "a.qcow2", size)
        flat = flat[:size] + bytes(max(0, size - len(flat)))
        self.judge(flat)


def grow_over_longer(self):
    if self.raw:
        return
    self.below("base.raw", 2 * MIB)
    flat = self.make("a", 600 * KIB + 512, "base.raw")
    for size in (MIB + 512, 3 * MIB):
        platter("resize", "-q", "a.qcow2", size)
        flat += bytes(size - len(flat))
        self.judge(flat)


# ---- commit and rebase ---------------------------------------------------------------------------


def commit(self):
    """From an image of the shape into a raw one."""
    if self.raw:
        return
    for keep in (["-d"], []):
        self.below("base.raw", 700 * KIB)
        flat = self.make("a", below="base.raw")
        platter("commit", "-q", *keep, "a.qcow2")
        self.judge(flat)
        with open("base.raw", "rb") as file:
            self.assertEqual(file.read(), flat, "committed")


def commit_into(self):
    """From a plain image into one of the shape, over another of the shape."""
    flat = self.make("a")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "mid.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", 2 * MIB)
    flat += bytes(2 * MIB - len(flat))
    for byte, off, length in ((6, 90 * KIB, 100 * KIB), (0, 0, 64 * KIB), (7, 2 * MIB - 512, 512)):
        self.write("top", flat, byte, off, length)
    platter("commit", "-q", "-b", "a.qcow2", "top.qcow2")
    self.judge(flat)


def rebase(self):
    if self.raw:
        return
    self.below("base.raw", 700 * KIB)
    self.below("other.raw", 2 * MIB, 8)
    flat = self.make("a", below="base.raw")
    for name in ("other.raw", "", "base.raw"):
        platter("rebase", "-q", "-b", name, *(["-F", "raw"] if name else []), "a.qcow2")
        self.judge(flat)
    os.rename("base.raw", "moved.raw")
    platter("rebase", "-u", "-b", "moved.raw", "-F", "raw", "a.qcow2")
    self.judge(flat)


# ---- amend ---------------------------------------------------------------------------------------


def amend(self):
    flat = self.make("a")
    for change in ("refcount_bits=1", "refcount_bits=64,lazy_refcounts=on", "refcount_bits=16",
                   "lazy_refcounts=off", f"size={2 * MIB}"):
        platter("amend", "-q", "-o", change, "a.qcow2")
        flat += bytes(2 * MIB - len(flat)) if "size" in change else b""
        self.judge(flat)
    refused = self.data or self.extended
    platter("amend", "-q", "-o", "compat=0.10", "a.qcow2", code=int(refused))
    self.judge(flat)
    if not refused:
        platter("amend", "-q", "-o", "compat=1.1", "a.qcow2")
        self.judge(flat)
    if self.data:
        platter("amend", "-q", "-o", "data_file_raw=off,data_file=moved.bin", "a.qcow2")
        os.rename("a.bin", "moved.bin")
        self.raw = False
        self.judge(flat)


# ---- what is kept inside -------------------------------------------------------------------------


def bitmaps(self):
    flat = self.make("a")
    platter("bitmap", "--add", "--enable", "a.qcow2", "one")
    self.write("a", flat, 5, 320 * KIB, 64 * KIB)
    platter("resize", "-q", "a.qcow2", 2 * MIB)
    flat += bytes(2 * MIB - len(flat))
    self.judge(flat)
    self.write("a", flat, 5, 2 * MIB - 64 * KIB, 64 * KIB)
    listed = platter("map", "--bitmap", "one", "a.qcow2").stdout
    self.assertTrue(listed.strip(), "the bitmap knows of the writes")
    platter("bitmap", "--clear", "--disable", "a.qcow2", "one")
    self.judge(flat)
    platter("bitmap", "--remove", "a.qcow2", "one")
    self.judge(flat)


def snapshots(self):
    flat = self.make("a")
    platter("snapshot", "-c", "one", "a.qcow2", code=int(self.data))
    self.judge(flat)
    if self.data:
        return
    before = bytes(flat)
    self.write("a", flat, 5, 50 * KIB, 300 * KIB)
    platter("resize", "-q", "--shrink", "a.qcow2", 512 * KIB)
    del flat[512 * KIB:]
    self.judge(flat)
    platter("amend", "-q", "-o", "refcount_bits=8", "a.qcow2")
    platter("snapshot", "-a", "one", "a.qcow2")
    self.judge(before)
    platter("snapshot", "-d", "one", "a.qcow2")
    self.judge(before)


# ---- the rest ------------------------------------------------------------------------------------


def check(self):
    """A cluster that is counted and nobody's is found and given back."""
    flat = self.make("a")
    with open("a.qcow2", "r+b") as file:
        image = file.read()
        table, = struct.unpack_from(">Q", image, 48)
        block, = struct.unpack_from(">Q", image, table)
        width = 1 << struct.unpack_from(">I", image, 96)[0] - 3
        leaked = (len(image) >> image[23]) + 3
        file.seek(block + leaked * width)
        file.write((1).to_bytes(width, "big"))
    platter("check", "-q", "a.qcow2", code=3)
    platter("check", "-q", "-r", "all", "a.qcow2")
    self.judge(flat)


def dd_and_convert(self):
    flat = self.make("a")
    platter("dd", "bs=512", "skip=77", "count=900", "if=a.qcow2", "of=part.raw")
    with open("part.raw", "rb") as file:
        self.assertEqual(file.read(), flat[77 * 512:977 * 512])
    platter("convert", "-O", "qcow2", "-o", self.options.format("b"), "a.qcow2", "b.qcow2")
    self.judge(flat, "b")
    flat = self.make("c")
    platter("convert", "-n", "-O", "qcow2", "c.qcow2", "b.qcow2")
    self.judge(flat, "b")
    platter("convert", "-c", "-O", "qcow2", "-o", self.options.format("d"), "a.qcow2", "d.qcow2",
            code=int(self.data))


def writes(self):
    """In place, by a program that uses the library."""
    with open("shadow.raw", "wb") as file:
        file.write(self.make("a"))
    self.poke("a.qcow2", "qcow2", "shadow.raw", 5)
    with open("shadow.raw", "rb") as file:
        self.judge(file.read())


for number, way in enumerate((grow, shrink_and_grow, grow_over_longer, commit, commit_into, rebase,
                              amend, bitmaps, snapshots, check, dd_and_convert, writes)):
    for shape in SHAPES:
        add_case(Commands, f"{way.__name__}-{shape}",
                 lambda self, shape, way: (self.begin(shape), way(self)), shape, way)

if __name__ == "__main__":
    main()
