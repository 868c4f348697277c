# SPDX-License-Identifier: MIT
"""QCOW version 1 images broken in one place each: what reads as before, what is an error, what a
salvage brings, and what check and its repair make of it."""
import json
import os
import random
import struct

from craft_qcow import PACKED, Qcow, deflate
from harm import Bases, Harm, cut
from peers import KIB, MIB, Case, main, platter, text_like

SIZE = 5 * MIB
STORED = [0, 1, 2, 3, 600, 601, 1279]

bases = Bases("qcow")


def make_bases():
    rng = random.Random(8)
    data = bytearray(SIZE)
    plain, packed = Qcow(SIZE), Qcow(SIZE)
    for index in STORED:
        cluster = text_like(rng, 4 * KIB)
        data[index * 4 * KIB:(index + 1) * 4 * KIB] = cluster
        plain.data(index, cluster)
        packed.packed(index, deflate(cluster))
    bases.write("raw", data)
    bases.write("plain", plain.image())
    bases.write("packed", packed.image())


make_bases()


def entry_at(image, index):
    table, = struct.unpack_from(">Q", image, 48 + index // 512 * 8)
    return table + index % 512 * 8


def get(image, index):
    return struct.unpack_from(">Q", image, entry_at(image, index))[0]


def set_entry(index, value):
    return lambda image: struct.pack_into(">Q", image, entry_at(image, index),
                                          value(image) if callable(value) else value)


def set_l1(i, value):
    return lambda image: struct.pack_into(">Q", image, 48 + 8 * i,
                                          value(image) if callable(value) else value)


# Name: (base, harm, what the sentence says, how many errors a check finds).
BROKEN = {
    "l1-bit-63": ("plain", set_l1(0, PACKED | 4096), "L1 entry 0", 1),
    "l1-into-header": ("plain", set_l1(1, 40), "into the header", 1),
    "l1-twice": ("plain", set_l1(1, 4096), "of another entry", 2),
    "l1-far": ("plain", set_l1(1, 1 << 40), "behind the end of the file", 1),
    "misaligned": ("plain", set_entry(1, lambda i: get(i, 1) + 8), "not a multiple of 512", 1),
    "far": ("plain", set_entry(600, 1 << 40), "the file ends at", 1),
    "into-a-table": ("plain", set_entry(0, 4096 + 512), "into an L2 table", 1),
    "into-the-header": ("plain", set_entry(0, 1 << 62), "the file ends at", 1),
    "empty-stream": ("packed", set_entry(2, lambda i: PACKED | get(i, 2) & (1 << 51) - 1),
                     "0 bytes", 1),
    "far-stream": ("packed", set_entry(2, PACKED | 9 << 51 | 1 << 40), "the file ends at", 1),
    "cut": ("plain", cut(lambda i: len(i) - 1500), "the file ends at", 1),
    "cut-stream": ("packed", cut(lambda i: len(i) - 1), "the file ends at", 1),
}


class Broken(Harm):
    """Added below."""


def broken(self, name):
    base, harm, words, errors = BROKEN[name]
    raw = bases.path("raw")
    image = bases.damaged(base, harm)
    self.expect_error(image, "qcow", raw, words)
    self.salvage(image, "qcow", raw)
    done = platter("check", "--output=json", image, code=2)
    told = json.loads(done.stdout)
    self.assertEqual(told["corruptions"], errors, done.stderr)
    self.assertRegex(done.stderr, words if words not in ("the file ends at",) else "file")
    done = platter("check", "-q", "-r", "all", image, code={0, 2, 3})
    if name == "l1-twice":  # nobody knows whose it is
        self.assertEqual(done.returncode, 2)
        return
    self.assertIn(done.returncode, (0, 3))
    platter("check", "-q", "-r", "leaks", image)
    self.assertEqual(platter("check", image).stderr, "")
    platter("convert", "-f", "qcow", "-O", "raw", image, "mended")
    with open("mended", "rb") as f, open(raw, "rb") as g:
        got, right = f.read(), g.read()
    good = sum(got[i * 4096:(i + 1) * 4096] == right[i * 4096:(i + 1) * 4096] for i in STORED)
    self.assertGreaterEqual(good, 3)


class Sound(Harm):
    def test_bases(self):
        for base in ("plain", "packed"):
            image = bases.damaged(base, lambda i: None)
            self.expect_good(image, "qcow", bases.path("raw"))
            self.assertEqual(platter("check", "--data", image).stderr, "")

    def test_table_past_the_end(self):
        """As a crashed QEMU leaves it: an error, unless a salvage is asked for; check -r all makes it
        what it was."""
        image = bases.damaged("plain", set_l1(1, len))
        raw = bases.path("raw")
        with open(raw, "rb") as f, open("known.raw", "wb") as g:
            data = bytearray(f.read())
            data[2 * MIB:4 * MIB] = bytes(2 * MIB)
            g.write(data)
        self.expect_error(image, "qcow", raw, "behind the end of the file")
        self.salvage_all(image, "qcow", "known.raw", 4, "follow on the end of the file")
        platter("check", "-q", "-r", "all", image, code=3)
        self.expect_good(image, "qcow", "known.raw")

    def test_shared_clusters_are_parted(self):
        """Both show what they showed, and a write to one no longer changes the other."""
        image = bases.damaged("plain", set_entry(600, lambda i: get(i, 0)))
        platter("convert", "-f", "qcow", "-O", "raw", image, "before")
        done = platter("check", image, code=2)
        self.assertIn("stand in the same bytes", done.stderr)
        platter("check", "-q", "-r", "all", image, code={0, 3})
        self.expect_good(image, "qcow", "before")

    def test_lost_space(self):
        """Found, and given back: in the middle as a hole, at the end by cutting the file."""
        image = bases.damaged("plain", set_entry(1279, 0))
        size = os.path.getsize(image)
        done = platter("check", image, code=3)
        self.assertRegex(done.stderr, "leak: .* belong to nobody")
        platter("check", "-q", "-r", "leaks", image)
        self.assertEqual(os.path.getsize(image), size - 4096)
        self.assertEqual(platter("check", image).stderr, "")

    def test_nonsense_is_left_alone(self):
        """A table that was overwritten may stand elsewhere."""
        rng = random.Random(9)

        def harm(image):
            image[4096:8192] = rng.randbytes(4096)
        image = bases.damaged("plain", harm)
        with open(image, "rb") as f:
            before = f.read()
        done = platter("check", "-r", "all", image, code=2)
        self.assertIn("left alone", done.stderr)
        with open(image, "rb") as f:
            self.assertEqual(f.read(), before)


for broken_name in BROKEN:
    method = "test_" + broken_name.replace("-", "_")
    setattr(Broken, method, lambda self, name=broken_name: broken(self, name))

if __name__ == "__main__":
    main()
