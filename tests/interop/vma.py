# SPDX-License-Identifier: MIT
"""Archives of Proxmox VE, made by a writer of the test's own (vma.md): disks read out of them at any
place, in every order of clusters; and damage, each kind with its own sentence."""
import json
import os
import random

from peers import MIB, Case, main, make_content, platter, qemu_img, sha256
from vma_writer import BLOCK, CLUSTER, archive, clusters, header, index, seal


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
        self.assertEqual(json.loads(platter("info", "--output=json", "twice.vma@2").stdout)
                         ["format-specific"]["data"]["devices"][0]["id"], 2)
        platter("digest", "twice.vma@3", code=1)
        archive("number.vma", {1: ("2", 512), 2: ("b", 4096)}, [(1, 0, b"", False), (2, 0, b"", False)])
        self.assertEqual(json.loads(platter("info", "--output=json", "number.vma@2").stdout)
                         ["virtual-size"], 512)
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
            self.assertTrue("cut short" in got or "is cut off" in got or "not in the archive" in got, got)
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

    def test_an_overlay_over_one_of_several(self):
        archive("x.vma", self.disks, self.all_slots())
        platter("create", "-f", "qcow2", "-b", "x.vma@drive-virtio1", "-F", "vma", "over.qcow2")
        platter("compare", "-F", "raw", "over.qcow2", "7.raw")
        platter("rebase", "-b", "x.vma@drive-scsi0", "-F", "vma", "over.qcow2")
        platter("compare", "-F", "raw", "over.qcow2", "7.raw")  # it kept what it had
        said = json.loads(platter("info", "--output=json", "--backing-chain", "over.qcow2").stdout)
        self.assertEqual(said[1]["virtual-size"], self.disks[1][1])
        self.assertIn("no device called nobody",
                      platter("create", "-f", "qcow2", "-b", "x.vma@nobody", "-F", "vma", "no.qcow2",
                              code=1).stderr)
        for name, fmt in (("x.vma@drive-virtio1", "raw"), ("y.vma@drive-virtio1", "vma")):
            said = platter("create", "-f", "qcow2", "-b", name, "-F", fmt, "no.qcow2", code=1).stderr
            self.assertIn("No such file", said)
        os.mkdir("in")
        platter("create", "-u", "-f", "qcow2", "-b", "../x.vma@drive-virtio1", "-F", "vma",
                "in/over.qcow2", "3M")
        self.assertIn("outside its own folder", platter("digest", "in/over.qcow2", code=1).stderr)
        platter("compare", "-F", "raw", "--allow", ".", "in/over.qcow2", "7.raw")
        os.rename("x.vma", "x.vma@drive-virtio1")  # a file of that name comes first
        self.assertIn("archive of 3 disks", platter("digest", "--allow", ".", "in/over.qcow2",
                                                    code=1).stderr)

    # ---- the index that is kept ------------------------------------------------------------------

    def test_index(self):
        slots = self.all_slots()
        slots[5:5] = [None] * 200  # empty extents
        archive("x.vma", self.disks, [*slots, *[None] * 60])
        plain = platter("info", "--output=json", "x.vma").stdout
        said = platter("archive", "index", "x.vma").stdout
        self.assertEqual(said, "Index written to x.vma.index.\n")
        with open("x.vma", "rb") as f, open("x.vma.index", "rb") as beside:
            self.assertEqual(beside.read(), index(f.read(), self.disks))
        indexed = platter("info", "--output=json", "x.vma").stdout
        self.assertEqual(plain.replace('"indexed": false', '"indexed": true'), indexed)
        self.check_disks()
        platter("archive", "index", "-q", "x.vma")  # an older one is replaced
        os.rename("x.vma.index", "other")
        self.assertEqual(platter("info", "--output=json", "x.vma").stdout, plain)
        platter("archive", "index", "-o", "other", "x.vma")
        os.symlink("other", "x.vma.index")  # beside it: it may be a link
        self.assertIn('"indexed": true', platter("info", "--output=json", "x.vma").stdout)

    def test_index_is_no_way_out_of_the_folder(self):
        archive("x.vma", self.disks, self.all_slots())
        os.mkdir("elsewhere")
        platter("archive", "index", "-o", "elsewhere/index", "x.vma")
        os.mkdir("in")
        os.rename("x.vma", "in/x.vma")
        os.symlink("../elsewhere/index", "in/x.vma.index")
        self.assertIn('"indexed": false', platter("info", "--output=json", "in/x.vma").stdout)
        os.unlink("in/x.vma.index")
        os.mkfifo("in/x.vma.index")
        self.assertIn('"indexed": false', platter("info", "--output=json", "in/x.vma").stdout)

    def test_index_that_does_not_fit(self):
        archive("x.vma", self.disks, self.all_slots())
        platter("archive", "index", "x.vma")
        turned = sorted(self.all_slots(), key=lambda s: -s[1])
        archive("x.vma", self.disks, turned)
        got = platter("info", "x.vma")
        self.assertIn("x.vma.index: is of another archive", got.stderr)
        self.assertIn("platter archive index x.vma", got.stderr)
        self.check_disks()
        with open("x.vma.index", "r+b") as f:
            f.seek(4096 + 5)
            f.write(b"\xff")
        archive("x.vma", self.disks, self.all_slots())
        self.assertIn("x.vma.index: is damaged", platter("info", "x.vma").stderr)
        self.check_disks()

    def test_index_replaces_nothing_else(self):
        archive("x.vma", self.disks, self.all_slots())
        before = sha256("x.vma")
        for name in ("1.raw", "x.vma"):
            got = platter("archive", "index", "-o", name, "x.vma", code=1).stderr
            self.assertIn("is no index of an archive", got)
        self.assertEqual(sha256("x.vma"), before)
        platter("create", "-f", "qcow2", "a.qcow2", "1M")
        self.assertIn("has no index", platter("archive", "index", "a.qcow2", code=1).stderr)
        with open("x.vma", "r+b") as f:
            f.truncate(os.path.getsize("x.vma") - 1)
        self.assertIn("cut short", platter("archive", "index", "x.vma", code=1).stderr)
        self.assertFalse(os.path.exists("x.vma.index"))

    # ---- quirks and damage -----------------------------------------------------------------------

    def test_zeros_just_past_the_end(self):
        """A writer of 2013 left them (vma.md section 7.3)."""
        for full in (True, False):
            extra = (7, 48, b"", full)
            archive("x.vma", self.disks, [*self.all_slots(), extra])
            self.assertIn("zeros just past the end", platter("info", "x.vma").stderr)
            self.check_disks()
            platter("archive", "index", "x.vma")
            self.assertIn("zeros just past the end", platter("info", "x.vma").stderr)
            os.unlink("x.vma.index")
        for bad in ((7, 48, b"x", False), (7, 49, b"", True)):
            archive("x.vma", self.disks, [*self.all_slots(), bad])
            self.assertIn("has only 48 of them",
                          platter("digest", "x.vma@drive-virtio1", code=1).stderr)
        archive("x.vma", self.disks, [*self.all_slots(), extra, extra])
        platter("digest", "x.vma@drive-virtio1", code=1)

    def test_info_of_what_is_damaged(self):
        archive("x.vma", self.disks, self.all_slots())
        with open("x.vma", "r+b") as f:
            f.truncate(os.path.getsize("x.vma") - 1)
        got = platter("info", "--output=json", "x.vma")
        self.assertIn("cut short", got.stderr)
        data = json.loads(got.stdout)["format-specific"]["data"]
        self.assertEqual([d["name"] for d in data["devices"]], [d[0] for d in self.disks.values()])
        self.assertNotIn("missing-clusters", data["devices"][0])

    def test_a_whole_disk_beside_one_that_is_not(self):
        archive("x.vma", self.disks, [s for s in self.all_slots() if s[:2] != (1, 3)])
        self.check_disks(disks={i: self.disks[i] for i in (2, 7)})
        platter("digest", "x.vma@drive-scsi0", code=1)

    def test_bytes_that_came_or_went_are_not_overlooked(self):
        """The data in front of the next extent may have moved, whatever their number."""
        for change in (1, 512, 4096, 4608, -1, -512, -4096):
            archive("x.vma", self.disks, self.all_slots(full=True), per=9)
            with open("x.vma", "rb") as f:
                data = bytearray(f.read())
            start = len(header(self.disks, (("qemu-server.conf", b"memory: 512\n"),)))
            at = start + 512 + 3 * CLUSTER
            if change > 0:
                data[at:at] = bytes([7]) * change
            else:
                del data[at:at - change]
            with open("x.vma", "wb") as f:
                f.write(data)
            got = platter("digest", "x.vma@drive-scsi0", code=1)
            self.assertIn("--salvage", got.stderr)
            platter("convert", "--salvage", "-O", "raw", "x.vma@drive-scsi0", "out.raw", code=4)
            got = platter("convert", "--salvage", "-O", "raw", "x.vma@drive-virtio1", "out.raw")
            self.assertEqual(sha256("out.raw"), sha256("7.raw"))
            self.assertEqual(got.stderr, "")

    def test_salvage(self):
        """What stood where the damage is becomes holes, told as such, and nothing else does. Where it
        cannot be sure of what stands in front of the damage, that is said."""
        rng = random.Random(11)
        slots = self.all_slots(full=True)
        rng.shuffle(slots)
        per, length = 7, 512 + 7 * CLUSTER
        start = len(header(self.disks, (("qemu-server.conf", b"memory: 512\n"),)))
        n = -(-len(slots) // per)
        for kind in ("bit", "header", "magic", "insert", "remove", "cut", "repeat"):
            archive("x.vma", self.disks, slots, per=per)
            bad = sorted(rng.sample(range(1, n - 1), 3))
            lost = {s[:2] for i in bad for s in slots[i * per:(i + 1) * per]}
            with open("x.vma", "rb") as f:
                data = bytearray(f.read())
            if kind == "cut":
                data = data[:start + bad[0] * length + 512 + 2 * CLUSTER + 5]
                lost = {s[:2] for s in slots[bad[0] * per + 2:]}
            for i in reversed(bad) if kind != "cut" else []:
                at = start + i * length
                if kind == "bit":
                    lost = set()
                    data[at + 100] ^= 1
                elif kind in ("header", "magic"):
                    data[at + (100 if kind == "header" else 0)] ^= 0xff
                elif kind == "insert":
                    data[at:at + 512] = rng.randbytes(700)
                elif kind == "remove":
                    del data[at:at + 1000]
                else:
                    lost = set()
                    data[at:at] = data[start:start + length]
            with open("x.vma", "wb") as f:
                f.write(data)
            platter("info", "--salvage", "x.vma")
            for i, (name, size) in self.disks.items():
                with open(f"{i}.raw", "rb") as f:
                    want = bytearray(f.read())
                gone = sorted(c for d, c in lost if d == i)
                got = platter("convert", "--salvage", "-O", "raw", f"x.vma@{name}", "out.raw",
                              code=4 if gone else {0, 4})
                for c in gone:
                    end = min(size, (c + 1) * CLUSTER)
                    want[c * CLUSTER:end] = bytes(end - c * CLUSTER)
                with open("out.raw", "rb") as f:
                    self.assertEqual(f.read(), want, (kind, name))
                self.assertEqual(got.returncode == 4, bool(got.stderr))
                told = sum(int(line.split("length ")[1].split(":")[0])
                           for line in got.stderr.splitlines() if "hole at" in line)
                self.assertEqual(told, sum(min(size, (c + 1) * CLUSTER) - c * CLUSTER for c in gone))


if __name__ == "__main__":
    main()
