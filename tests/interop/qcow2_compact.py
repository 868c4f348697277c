# SPDX-License-Identifier: MIT
"""Compaction of qcow2 images of every shape: the peer makes them, with holes and snapshots; afterwards
it finds no fault, disk and snapshots are what they were, and the file is not longer than it must be."""
import json
import os
import random

from peers import KIB, MIB, Case, add_case, main, make_content, platter, qemu_img, qemu_io, sha256

SIZE = 4 * MIB
SHAPES = {
    "64k": {"cluster_size": "64k"},
    "512": {"cluster_size": "512"},
    "512-64": {"cluster_size": "512", "refcount_bits": "64"},
    "4k-1": {"cluster_size": "4k", "refcount_bits": "1"},
    "4k-2": {"cluster_size": "4k", "refcount_bits": "2"},
    "2m": {"cluster_size": "2M"},
    "old": {"cluster_size": "4k", "compat": "0.10"},
    "subclusters": {"cluster_size": "16k", "extended_l2": "on"},
    "lazy": {"cluster_size": "4k", "lazy_refcounts": "on", "refcount_bits": "8"},
    "reserved": {"cluster_size": "4k", "preallocation": "metadata"},
    "data-file": {"cluster_size": "512", "data_file": "data.bin"},
    "zstd": {"cluster_size": "4k", "compression_type": "zstd"},
}


def option_text(shape):
    return ",".join(f"{key}={value}" for key, value in shape.items())


class Compact(Case):
    """An image, and what its disk and its snapshots hold."""

    def begin(self, shape, seed):
        self.rng = random.Random(seed)
        self.shape = shape
        self.snapshots = {}

    def scatter(self, count, unit=4 * KIB):
        """Writes and discards all over the disk."""
        commands = []
        size = json.loads(qemu_img("info", "--output=json", "a.qcow2").stdout)["virtual-size"]
        for _ in range(count):
            at = self.rng.randrange(size // unit) * unit
            length = min(self.rng.randrange(1, 40) * unit, size - at)
            what = self.rng.choice(["write", "write", "discard", "write -z"])
            if what == "write":
                what = f"write -P {self.rng.randrange(1, 255)}"
            commands.append(f"{what} {at} {length}")
        qemu_io("a.qcow2", "qcow2", *commands)

    def take(self, name):
        """A snapshot, with what it holds; where one more reference cannot be counted there is
        none."""
        if self.shape.get("refcount_bits") == "1" or "data_file" in self.shape:
            return
        qemu_img("snapshot", "-c", name, "a.qcow2")
        qemu_img("convert", "-l", name, "-O", "raw", "a.qcow2", f"{name}.raw")
        self.snapshots[name] = sha256(f"{name}.raw")

    def drop(self, name):
        if self.snapshots.pop(name, None):
            qemu_img("snapshot", "-d", name, "a.qcow2")

    def disk(self):
        qemu_img("convert", "-O", "raw", "a.qcow2", "now.raw")
        return sha256("now.raw")

    def judge(self, disk, free=0):
        """All is what it was, and no cluster of the file is free but `free` of them."""
        qemu_img("check", "-q", "a.qcow2")
        platter("check", "-q", "a.qcow2")
        self.assertEqual(self.disk(), disk, "the disk")
        for name, digest in self.snapshots.items():
            qemu_img("convert", "-l", name, "-O", "raw", "a.qcow2", "then.raw")
            self.assertEqual(sha256("then.raw"), digest, name)
        dry = json.loads(platter("compact", "--dry-run", "--output=json", "a.qcow2").stdout)
        self.assertLessEqual(dry["saved"], free * dry["cluster-size"], dry)

    def compact(self, *options):
        before = os.path.getsize("a.qcow2")
        dry = json.loads(platter("compact", "-n", *options, "--output=json", "a.qcow2").stdout)
        self.assertEqual(os.path.getsize("a.qcow2"), before)
        done = json.loads(platter("compact", *options, "--output=json", "a.qcow2").stdout)
        self.assertEqual(done["new-size"], os.path.getsize("a.qcow2"))
        self.assertEqual(done["file-size"], before)
        self.assertEqual(done["saved"], before - done["new-size"])
        return dry, done


def holes(self, shape, seed):
    """Snapshots come and go, and leave holes."""
    self.begin(shape, seed)
    qemu_img("create", "-q", "-f", "qcow2", "-o", option_text(shape), "a.qcow2", SIZE)
    self.scatter(12)
    self.take("one")
    self.scatter(12)
    self.take("two")
    self.scatter(12)
    self.drop("one")
    self.scatter(6)
    disk = self.disk()
    before = os.path.getsize("a.qcow2")
    dry, done = self.compact()
    self.judge(disk)
    self.assertLessEqual(done["new-size"], before)
    self.assertLess(done["new-size"], dry["new-size"] + dry["cluster-size"], "as was promised")
    # It can be worked on.
    self.scatter(8)
    self.take("three")
    self.drop("two")
    disk = self.disk()
    dry, done = self.compact("--zeros")
    self.assertLess(done["new-size"], dry["new-size"] + dry["cluster-size"], "as was promised")
    self.judge(disk)


def tables(self, seed):
    """Many tables of several clusters, between holes that are too small for them."""
    self.begin({"cluster_size": "512"}, seed)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", 4 * SIZE)
    for number in range(6):
        self.scatter(4)
        self.take(f"s{number}")
    for number in self.rng.sample(range(6), 3):
        self.drop(f"s{number}")
        self.scatter(3)
    disk = self.disk()
    dry, done = self.compact()
    self.assertLess(done["new-size"], dry["new-size"] + dry["cluster-size"], "as was promised")
    self.judge(disk)


def packed(self, compression):
    """Compressed clusters, some of which were overwritten, and are shared with a snapshot."""
    self.begin({"cluster_size": "4k", "compression_type": compression}, 5)
    make_content("a.raw", SIZE, 9)
    qemu_img("convert", "-c", "-O", "qcow2", "-o", option_text(self.shape), "a.raw", "a.qcow2")
    self.take("one")
    self.scatter(10)
    self.take("two")
    self.scatter(10)
    self.drop("one")
    disk = self.disk()
    before = os.path.getsize("a.qcow2")
    _, done = self.compact()
    self.judge(disk, free=before)  # records that straddled may need more room than they had
    self.assertLess(done["new-size"], before)


def overlay(self):
    """What the image does not store still comes from below."""
    self.begin({"cluster_size": "4k"}, 6)
    make_content("base.raw", SIZE, 10)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.raw", "-F", "raw",
             "a.qcow2")
    self.scatter(20)
    self.take("one")
    self.scatter(20)
    self.drop("one")
    disk = self.disk()
    self.compact("--zeros")
    self.judge(disk)


def bitmaps(self, cluster):
    """Bitmaps stay what they are, in use or not."""
    self.begin({"cluster_size": cluster}, 7)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", "a.qcow2", 24 * MIB)
    self.scatter(10)
    self.take("gone")
    qemu_img("bitmap", "--add", "-g", "4k", "a.qcow2", "fine")
    qemu_img("bitmap", "--add", "-g", "512", "--disable", "a.qcow2", "finest")
    self.scatter(10)
    qemu_img("bitmap", "--merge", "fine", "a.qcow2", "finest")
    self.drop("gone")
    disk = self.disk()
    lists = [platter("bitmap", "list", "--output=json", "a.qcow2").stdout]
    maps = [platter("map", "--bitmap", "fine", "--output=json", "a.qcow2").stdout]
    _, done = self.compact()
    self.judge(disk)
    self.assertGreater(done["saved"], 0)
    lists.append(platter("bitmap", "list", "--output=json", "a.qcow2").stdout)
    maps.append(platter("map", "--bitmap", "fine", "--output=json", "a.qcow2").stdout)
    self.assertEqual(*lists)
    self.assertEqual(*maps)


def encrypted(self):
    """Data is encrypted for its new place; snapshots, too."""
    with open("a.key", "w", encoding="utf-8") as f:
        f.write("key")
    key = ["--key-file", "a.key"]
    make_content("a.raw", SIZE, 11)
    platter("convert", "--new-key-file", "a.key", "-O", "qcow2", "-o",
            "cluster_size=4k,encrypt.format=luks,encrypt.iter-time=10", "a.raw", "a.qcow2")
    platter("snapshot", "create", "a.qcow2", "one", *key)
    platter("bench", "-q", "-w", "--random", "-c", "100", "-s", "8k", *key, "a.qcow2")
    platter("snapshot", "create", "a.qcow2", "two", *key)
    platter("bench", "-q", "-w", "--random", "-c", "60", "-s", "4k", "--pattern=3", *key, "a.qcow2")
    digests = [platter("digest", *key, f"a.qcow2{view}").stdout for view in ("", "@two")]
    platter("snapshot", "delete", "a.qcow2", "one", *key)
    before = os.path.getsize("a.qcow2")
    platter("compact", "-q", *key, "a.qcow2")
    self.assertLess(os.path.getsize("a.qcow2"), before)
    self.assertEqual(
        [platter("digest", *key, f"a.qcow2{view}").stdout for view in ("", "@two")], digests)
    platter("check", "-q", "a.qcow2")
    qemu_img("check", "-q", "--object", "secret,id=s,file=a.key", "--image-opts",
             "driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=s")


for number, (label, text) in enumerate(SHAPES.items()):
    add_case(Compact, label, holes, text, number)
add_case(Compact, "tables", tables, 1)
for word in ("zlib", "zstd"):
    add_case(Compact, f"packed_{word}", packed, word)
for word in ("4k", "64k", "512"):
    add_case(Compact, f"bitmaps_{word}", bitmaps, word)
add_case(Compact, "overlay", overlay)
add_case(Compact, "encrypted", encrypted)

if __name__ == "__main__":
    main()
