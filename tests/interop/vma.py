# SPDX-License-Identifier: MIT
"""Archives of Proxmox VE, made by a writer of the test's own (vma.md): disks read out of them at any
place, in every order of clusters; and damage, each kind with its own sentence."""
import json
import os
import random

from peers import MIB, Case, main, make_content, platter, qemu_img, sha256
from vma_writer import BLOCK, CLUSTER, archive, clusters, header, seal


class Vma(Case):
    def setUp(self):
        super().setUp()
        self.disks = {1: ("drive-scsi0", 5 * MIB + 512), 2: ("drive-efidisk0", 540672),
                      7: ("drive-virtio1", 3 * MIB)}
        for i, (_, size) in self.disks.items():
            make_content(f"{i}.raw", size, i)

    def check_disks(self, path="x.vma", disks=None):
        for i, (name, _) in (disks or self.disks).items():
            view = f"{path}@{name}"
            platter("compare", "-f", "vma", "-F", "raw", view, f"{i}.raw")
            platter("convert", "-O", "raw", view, "out.raw")
            self.assertEqual(sha256("out.raw"), sha256(f"{i}.raw"))
            platter("convert", "-O", "qcow2", view, "out.qcow2")
            qemu_img("check", "-q", "out.qcow2")
            qemu_img("compare", "-f", "raw", "-F", "qcow2", f"{i}.raw", "out.qcow2")

    def all_slots(self, full=False):
        return [s for i in self.disks for s in clusters(i, f"{i}.raw", full)]

    def test_orders(self):
        rng = random.Random(7)
        slots = self.all_slots()
        archive("x.vma", self.disks, slots)
        self.check_disks()
        turns = sorted(slots, key=lambda s: (s[1], s[0]))
        archive("x.vma", self.disks, turns, per=59)
        self.check_disks()
        rng.shuffle(slots)
        for at in range(3, len(slots), 5):
            slots.insert(at, None)
        archive("x.vma", self.disks, slots, per=7)
        self.check_disks()

    def test_header_of_any_length_and_full_masks(self):
        archive("x.vma", self.disks, self.all_slots(full=True), pad=1)
        self.check_disks()

    def test_map_tells_what_is_stored(self):
        with open("1.raw", "wb") as f:
            f.truncate(4 * CLUSTER)
            for at, length in ((0, BLOCK), (3 * BLOCK, CLUSTER), (3 * CLUSTER, 5)):
                f.seek(at)
                f.write(b"x" * length)
        archive("x.vma", {1: ("one", 4 * CLUSTER)}, clusters(1, "1.raw"))
        said = json.loads(platter("map", "--output=json", "x.vma").stdout)
        start = os.path.getsize("x.vma") - (1 + 16 + 1) * BLOCK
        self.assertEqual(
            [(x["start"], x["length"], x["data"], x.get("offset")) for x in said],
            [(0, BLOCK, True, start), (BLOCK, 2 * BLOCK, False, None),
             (3 * BLOCK, CLUSTER, True, start + BLOCK),
             (3 * BLOCK + CLUSTER, 2 * CLUSTER - 3 * BLOCK, False, None),
             (3 * CLUSTER, BLOCK, True, start + 17 * BLOCK),
             (3 * CLUSTER + BLOCK, 15 * BLOCK, False, None)])

    def test_info(self):
        slots = self.all_slots()
        del slots[3]
        archive("x.vma", self.disks, slots, configs=(("qemu-server.conf", b"a"), ("empty", b"")))
        said = json.loads(platter("info", "--output=json", "x.vma").stdout)
        self.assertEqual(said["format"], "vma")
        self.assertEqual(said["virtual-size"], sum(size for _, size in self.disks.values()))
        data = said["format-specific"]["data"]
        self.assertEqual(data["uuid"], "00010203-0405-0607-0809-0a0b0c0d0e0f")
        self.assertEqual(data["configs"], [{"name": "qemu-server.conf", "size": 1},
                                           {"name": "empty", "size": 0}])
        self.assertEqual([(d["name"], d["size"], d["missing-clusters"]) for d in data["devices"]],
                         [(name, size, int(i == 1)) for i, (name, size) in self.disks.items()])
        self.assertIn("drive-scsi0", platter("info", "x.vma").stdout)
        one = json.loads(platter("info", "--output=json", "x.vma@drive-efidisk0").stdout)
        self.assertEqual(one["virtual-size"], 540672)

    def test_memory_of_the_machine(self):
        """As long as there is of it, whatever the header says; zeros are part of it."""
        state = [(3, 0, b"\1" * CLUSTER, True), (3, 1, b"\2", False), (3, 2, b"", False)]
        archive("x.vma", {1: self.disks[1], 3: ("vmstate", 99)},
                [*state, *clusters(1, "1.raw")])
        platter("convert", "-O", "raw", "x.vma@vmstate", "out.raw")
        with open("out.raw", "rb") as f:
            self.assertEqual(f.read(), b"\1" * CLUSTER + b"\2".ljust(2 * CLUSTER, b"\0"))
        platter("compare", "-F", "raw", "x.vma", "1.raw")  # the only disk needs no name

    def test_which_disk(self):
        archive("x.vma", self.disks, self.all_slots())
        self.assertIn("an archive of 3 disks", platter("digest", "x.vma", code=1).stderr)
        self.assertIn("no device called nobody", platter("digest", "x.vma@nobody", code=1).stderr)
        archive("none.vma", {}, [None])
        self.assertIn("no disk in this archive", platter("digest", "none.vma", code=1).stderr)
        platter("info", "none.vma")
        archive("twice.vma", {1: ("a", 512), 2: ("a", 512)}, [(1, 0, b"", False), (2, 0, b"", False)])
        self.assertIn("devices 1 and 2 have the same name",
                      platter("digest", "twice.vma@a", code=1).stderr)
        archive("last.vma", {255: ("a", 512)}, [(255, 0, b"x", False)])
        platter("digest", "last.vma")

    def test_missing_clusters_are_errors_where_they_are(self):
        archive("x.vma", {1: self.disks[1]}, list(clusters(1, "1.raw"))[:-1])
        said = platter("convert", "-O", "raw", "x.vma", "out.raw", code=1).stderr
        self.assertIn("cluster 80 of device 1 (drive-scsi0) is not in the archive", said)
        self.assertFalse(os.path.exists("out.raw"))

    def test_damage(self):
        start = len(header(self.disks, (("qemu-server.conf", b"memory: 512\n"),)))
        slots = self.all_slots()
        cases = [  # offset, bytes, length of what is sealed anew, what is said
            (100, b"\1", 0, "the checksum of the header"),
            (7, b"\2", start, "of version 2"),
            (start + 30, b"\xff", 0, f"the extent at {start}: the checksum"),
            (start + 5, b"\1", 512, "reserved bytes"),
            (start + 6, b"\0\0", 512, "block_count is 0"),
            (start + 8, b"\xee", 512, "its uuid differs"),
            (start, b"XMAE", 512, "does not begin with VMAE"),
            (start + 40 + 3, b"\6", 512, "there is no such device"),
            (start + 40 + 8 + 4, bytes(4), 512, "cluster 0 of device 1 is there a second time"),
            (start + 40 + 4, b"\0\1\0\0", 512, "which has only 81 of them"),
        ]
        for at, put, sealed, said in cases:
            archive("x.vma", self.disks, slots)
            with open("x.vma", "r+b") as f:
                f.seek(at)
                f.write(put)
            if sealed:
                seal("x.vma", start if at >= start else 0, sealed)
            got = platter("digest", "x.vma@drive-scsi0", code=1).stderr
            self.assertIn(said, got)

    def test_cut_short(self):
        archive("good.vma", self.disks, self.all_slots())
        whole = os.path.getsize("good.vma")
        rng = random.Random(1)
        for size in [0, 4, 12287, 12288, 12799, 12801, whole - 1] + [rng.randrange(12800, whole)
                                                                   for _ in range(20)]:
            with open("good.vma", "rb") as f, open("x.vma", "wb") as out:
                out.write(f.read(size))
            got = platter("digest", "-f", "vma", "x.vma@drive-scsi0", code=1).stderr
            self.assertTrue("cut short" in got or "not in the archive" in got, got)
        with open("good.vma", "ab") as f:
            f.write(bytes(100))
        self.assertIn("100 bytes at", platter("digest", "good.vma@drive-scsi0", code=1).stderr)

    def test_disks_are_no_snapshots_and_there_is_no_check(self):
        archive("x.vma", self.disks, self.all_slots())
        self.assertEqual(platter("snapshot", "-l", "x.vma").stdout, "")
        self.assertEqual(json.loads(platter("snapshot", "-l", "--output=json", "x.vma").stdout), [])
        self.assertIn("does not support checks", platter("check", "x.vma", code=63).stderr)

    def test_an_overlay_over_it(self):
        archive("x.vma", {1: self.disks[1]}, clusters(1, "1.raw"))
        platter("resize", "x.vma", "10M", code=1)
        platter("create", "-f", "qcow2", "-b", "x.vma", "-F", "vma", "over.qcow2")
        platter("compare", "-F", "raw", "over.qcow2", "1.raw")


if __name__ == "__main__":
    main()
