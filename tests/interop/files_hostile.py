# SPDX-License-Identifier: MIT
"""platter ls and platter cp against disks that were made to do harm: what leads round and round, what has no end,
what is lost in silence, and files that would take the place of the disk itself."""
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

from files import FilesCase, make_ext, ours, write
from peers import KIB, MIB, PLATTER, main, platter, run

SECONDS = 60  # what no attack may take; they take a fraction of one


def quick(*argv, code=0):
    """In a process of its own, which ends in time: before there were limits, these did not."""
    return run("timeout", "-k", "5", SECONDS, PLATTER, *argv, code=code)


def patch(image, offset, data):
    with open(image, "r+b") as f:
        f.seek(offset)
        f.write(data)


class Hostile(FilesCase):
    def fat(self, *options):
        with open("f.img", "wb") as f:
            f.truncate(4 * MIB)
        run("mkfs.vfat", "-F", "16", "-s", "1", *options, "f.img")

    def inode(self, image, path):
        """Where the inode of a file stands."""
        said = run("debugfs", "-R", f"imap {path}", image).stdout
        block, offset = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", said).groups()
        return int(block) * 1024 + int(offset, 16)

    def ext(self, *options):
        """Of 1 KiB blocks and without checksums: whoever makes a disk can make those as well."""
        os.makedirs("tree", exist_ok=True)
        make_ext("e.img", 8 * MIB, "-b", "1024", "-O", "^metadata_csum,^64bit", *options)

    def free_block(self, image):
        return int(run("debugfs", "-R", "ffb", image).stdout.split()[-1])

    def check_refused(self, word, path="/f"):
        done = quick("cp", "-f", "raw", f"e.img:{path}", ".", code=1)
        self.assertIn(word, done.stderr)
        self.assertFalse(os.path.exists(os.path.basename(path)))
        done = quick("cp", "-f", "raw", f"e.img:{path}", "-", code=1)
        self.assertIn(word, done.stderr)

    def test_fat_folder_in_itself(self):
        """A folder has many names that all lead to itself, which can be gone through in as many orders as there are."""
        self.fat()
        run("mmd", "-i", "f.img", "::a")
        with open("f.img", "rb") as f:
            data = f.read()
        sector, per, reserved, copies, entries = struct.unpack_from("<HBHBH", data, 11)
        first = struct.unpack_from("<H", data, data.index(b"A          \x10") + 26)[0]
        base = (reserved + copies * struct.unpack_from("<H", data, 22)[0]) * sector + entries * 32
        base += (first - 2) * per * sector
        for i in range(2, 14):
            patch("f.img", base + 32 * i, (b"B%d" % i).ljust(11) + data[base + 11:base + 32])
        done = quick("ls", "-R", "-f", "raw", "f.img", "/", code=1)
        self.assertEqual(done.stderr.count("in itself"), 12)
        done = quick("cp", "-r", "-f", "raw", "f.img:/", "out", code=1)
        self.assertEqual(os.listdir("out/a"), [])

    def test_fat_folder_without_end(self):
        """The clusters of a folder go round, behind its last entry."""
        self.fat()
        run("mmd", "-i", "f.img", "::a")
        with open("f.img", "rb") as f:
            data = f.read()
        sector, _, reserved = struct.unpack_from("<HBH", data, 11)
        first = struct.unpack_from("<H", data, data.index(b"A          \x10") + 26)[0]
        patch("f.img", reserved * sector + 2 * first, struct.pack("<H", first))
        self.assertIn("has no end", quick("ls", "-f", "raw", "f.img", "/a", code=1).stderr)
        self.assertIn("has no end", quick("cp", "-r", "-f", "raw", "f.img:/a", ".", code=1).stderr)

    def test_ext_folders_in_two_places(self):
        """Each folder has the next one twice: 2 to the 40th ways."""
        self.ext()
        self.debugfs("e.img", *(f"mkdir d{i}" for i in range(41)),
                     *(f"ln d{i + 1} d{i}/{name}" for i in range(40) for name in "ab"))
        done = quick("ls", "-R", "-f", "raw", "e.img", "/d0", code=1)
        self.assertEqual(done.stderr.count("in two places"), 40)
        quick("cp", "-r", "-f", "raw", "e.img:/d0", "out", code=1)
        self.assertEqual(len(list(os.walk("out"))), 41)

    def test_extents_again_and_again(self):
        """Each block of a tree of extents leads to the next one in all places. The leaves have nothing, or what was
        never written, which nobody would read; or the tree leads to itself."""
        write("x", b"x" * 3000)
        free, depth = 7000, 5
        for leaf in (0, 84, None):
            self.ext()
            self.debugfs("e.img", "write x f", "mkdir d", "write x d/in")
            for i in range(depth):
                left = depth - 1 - i
                entry = struct.pack("<IIHH", 0, free if leaf is None else free + i + 1, 0, 0)
                data = struct.pack("<HHHHI", 0xf30a, 84, 84, left, 0) + 84 * entry
                if left == 0 and leaf is not None:
                    data = struct.pack("<HHHHI", 0xf30a, leaf, 84, 0, 0) + leaf * struct.pack("<IHHI", 0, 0x8001, 0, 99)
                patch("e.img", (free + i) * KIB, data.ljust(KIB, b"\0"))
            root = struct.pack("<HHHHI", 0xf30a, 4, 4, depth, 0) + 4 * struct.pack("<IIHH", 0, free, 0, 0)
            for path in ("/f", "/d"):
                patch("e.img", self.inode("e.img", path) + 40, root)
            quick("cp", "-f", "raw", "e.img:/f", ".", code=1)
            quick("ls", "-f", "raw", "e.img", "/d", code=1)
            self.assertFalse(os.path.exists("f"))

    def test_blocks_in_themselves(self):
        """As in ext2: an indirect block that has itself in all places, and one that has nothing."""
        write("x", b"x" * 3000)
        for fill in (True, False):
            self.ext("-t", "ext2")
            self.debugfs("e.img", "write x f", "mkdir d", "sif f size 0x300000000", "sif d size 0x30000000")
            block = self.free_block("e.img")
            patch("e.img", block * KIB, struct.pack("<I", block) * 256 if fill else bytes(KIB))
            for path in ("/f", "/d"):
                patch("e.img", self.inode("e.img", path) + 40 + 4 * 14, struct.pack("<I", block))
            quick("ls", "-f", "raw", "e.img", "/d", code=1)
            if fill:
                self.check_refused("some of them twice")

    def test_blocks_twice(self):
        """A few blocks that are said to be the whole of a large file."""
        self.ext()
        write("x", b"x" * 3000)
        self.debugfs("e.img", "write x f")
        extents = struct.pack("<HHHHI", 0xf30a, 3, 4, 0, 0)
        for i in range(3):
            extents += struct.pack("<IHHI", i * 4000, 4000, 0, 100)
        patch("e.img", self.inode("e.img", "/f") + 40, extents)
        self.debugfs("e.img", "sif f size 12000000")
        self.check_refused("some of them twice")

    def test_lost_parts_of_folders(self):
        """A folder that lost blocks has lost entries, which is no shorter list."""
        self.ext()
        self.debugfs("e.img", "mkdir d", *(f"mkdir d/{i:03}{'n' * 100}" for i in range(40)))
        self.assertEqual(len(ours("ls", "-f", "raw", "e.img", "/d").stdout.splitlines()), 40)
        self.debugfs("e.img", "punch d 2 2")
        done = ours("ls", "-f", "raw", "e.img", "/d", code=1)
        self.assertRegex(done.stderr, r"the folder of inode \d+ has \d+ bytes, of which \d+ are there")

    def test_one_among_others(self):
        """A size that no file has, and a name that no file here can have, keep nothing else from being copied."""
        os.makedirs("tree/etc")
        for name in "abcd":
            write(f"tree/etc/{name}", name.encode())
        self.ext()
        self.debugfs("e.img", "sif etc/a size 0x7fffffffffffffff", "sif etc/c size 0xffffffffffffffff")
        done = quick("cp", "-r", "-f", "raw", "e.img:/etc", "out", code=1)
        self.assertIn("which no file has", done.stderr)
        self.assertIn("a file of its size", done.stderr)
        self.assertEqual(sorted(os.listdir("out")), ["b", "d"])
        self.check_refused("which no file has", "/etc/a")
        self.fat()
        write("x", b"x")
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        for name in ("ä" * 200, "z"):
            run("mcopy", "-i", "f.img", "x", f"::{name}", env=env)
        done = quick("cp", "-r", "-f", "raw", "f.img:/", "fat", code=1)
        self.assertIn("too long", done.stderr)
        self.assertEqual(os.listdir("fat"), ["z"])

    def test_disk_is_not_replaced(self):
        """A file that is called as a part of the disk it is in."""
        os.makedirs("tree")
        for name in ("v-f001.vmdk", "v.vmdk", "q.raw", "q.qcow2"):
            write(f"tree/{name}", b"gotcha")
        self.ext()
        for image, part, options in (("v.vmdk", "v-f001.vmdk", ("vmdk", "-o", "subformat=twoGbMaxExtentFlat")),
                                     ("q.qcow2", "q.raw", ("qcow2", "-o", "data_file=q.raw"))):
            platter("convert", "-f", "raw", "-O", *options, "e.img", image)
            before = [os.stat(name).st_ino for name in (image, part)]
            for argv in (("cp", f"{image}:/{image}", f"{image}:/{part}", "."), ("cp", "-r", f"{image}:/", ".")):
                done = quick(*argv, code=1)
                self.assertEqual(done.stderr.count("is the image that is read"), 2)
                self.assertEqual([os.stat(name).st_ino for name in (image, part)], before)

    def test_unread_partition(self):
        """Where the beginning of a partition cannot be read, no other one is taken for it."""
        os.makedirs("tree/etc")
        write("tree/etc/f", b"f")
        self.ext()
        with open("d.img", "wb") as f:
            f.truncate(32 * MIB)
        run("sfdisk", "-q", "d.img", input="label: gpt\nstart=2048,size=9M\nstart=22528,size=9M\n")
        for at in (MIB, 11 * MIB):
            run("dd", "if=e.img", "of=d.img", "bs=64K", f"seek={at}", "oflag=seek_bytes", "conv=notrunc")
        platter("convert", "-f", "raw", "-O", "qcow2", "d.img", "d.qcow2")
        with open("d.qcow2", "rb") as f:
            image = f.read()
        tables = struct.unpack_from(">Q", image, 40)[0]
        entry = (struct.unpack_from(">Q", image, tables)[0] & 0xfffffffffffe00) + 8 * (11 * MIB // (64 * KIB))
        place = struct.unpack_from(">Q", image, entry)[0] & 0xfffffffffffe00
        patch("d.qcow2", entry, struct.pack(">Q", 1 << 62 | place))  # said to be compressed, which it is not
        for argv in (("cp", "d.qcow2:/etc/f", "."), ("ls", "d.qcow2", "/"), ("ls", "d.qcow2"),
                     ("ls", "--output=json", "d.qcow2"), ("cp", "--partition=2", "d.qcow2:/etc/f", "."),
                     ("ls", "--partition=2", "d.qcow2")):
            done = ours(*argv, code=1)
            self.assertIn("partition 2: its beginning cannot be read: ", done.stderr)
        self.assertFalse(os.path.exists("f"))
        self.assertEqual(ours("cp", "--partition=1", "d.qcow2:/etc/f", "-").stdout, "f")

    def test_one_name_twice(self):
        """In one folder, and among what is to be copied: nothing takes the place of what was copied just now."""
        os.makedirs("tree/a")
        os.makedirs("tree/b")
        write("tree/a/f", b"of a")
        write("tree/b/f", b"of b")
        for name in ("one_a", "one_b"):
            write(f"tree/{name}", b"x")
        self.ext()
        self.rename("e.img", b"one_b", b"one_a")
        done = quick("cp", "-r", "-f", "raw", "e.img:/", "out", code=1)
        self.assertIn('has more than one "one_a"', done.stderr)
        write("f", b"older")
        done = quick("cp", "-f", "raw", "e.img:/a/f", "e.img:/b/f", ".", code=1)
        self.assertIn("/b/f: what has its name here is what another one became", done.stderr)
        with open("f", "rb") as f:
            self.assertEqual(f.read(), b"of a")

    def test_owner_of_nobody(self):
        """A number that would leave the owner as it is: that of who copies."""
        os.makedirs("tree")
        write("tree/a", b"a")
        write("tree/b", b"b")
        self.ext()
        self.debugfs("e.img", "sif a uid 4294967295", "sif b uid 70000", "sif b gid 70000")
        if os.geteuid() == 0:
            done = quick("cp", "-r", "--owner", "-f", "raw", "e.img:/", "out", code=1)
            self.assertIn("/a: cannot set its owner", done.stderr)
            self.assertFalse(os.path.exists("out/a"))
            self.assertEqual((os.stat("out/b").st_uid, os.stat("out/b").st_gid), (70000, 70000))
        else:
            quick("cp", "-r", "--owner", "-f", "raw", "e.img:/", "out", code=1)

    def test_deeper_than_open_files(self):
        os.makedirs("tree/" + "d/" * 300)
        write("tree/" + "d/" * 300 + "f", b"f")
        self.ext()
        run("prlimit", "--nofile=128:4096", PLATTER, "cp", "-r", "-f", "raw", "e.img:/d", "out")
        self.assertTrue(os.path.exists("out/" + "d/" * 299 + "f"))

    def test_texts(self):
        """What a terminal would obey is not for it, also where it is an error that tells a name."""
        os.makedirs("tree")
        name = b"\x1b]0;owned\x07\xff\xc2\x9b2J"
        write(os.fsencode("tree/") + name, b"x")
        os.symlink(b"\x1b[31m", b"tree/link")
        self.ext("-L", "\x1b[2Jlabel")
        self.debugfs("e.img", "mkdir bad")
        ino = int(re.search(r"Inode: (\d+)", run("debugfs", "-R", "stat bad", "e.img").stdout)[1])
        patch("e.img", self.inode("e.img", f"<{ino}>"), bytes(2))
        for argv in (("ls", "e.img"), ("ls", "-R", "e.img", "/"), ("ls", "--output=json", "e.img", "/"),
                     ("cp", "-r", "e.img:/", "out"), ("cp", "-r", "e.img:/", "out")):
            done = subprocess.run([PLATTER, argv[0], "-f", "raw", *argv[1:]], capture_output=True, check=False)
            for said in (done.stdout, done.stderr):
                self.assertNotRegex(said, rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xff")
            shutil.rmtree("out/bad", ignore_errors=True)

    def test_checksums(self):
        """Any byte of an inode, a folder, or a block of extents that is another one is an error, with its inode."""
        os.makedirs("tree/d")
        with open("tree/f", "wb") as f:
            for i in range(600):  # in pieces, of which the inode has no room for the list
                f.seek(i * 8 * KIB)
                f.write(b"f" * KIB)
        write("tree/d/in", b"in")
        make_ext("e.img", 16 * MIB, "-b", "1024", "-O", "metadata_csum,64bit")
        stat = run("debugfs", "-R", "ex /f", "e.img").stdout
        leaf = int(re.search(r"^ *1/ *1 .*? (\d+) *-", stat, re.M)[1] if " 1/ 1 " in stat else
                   re.search(r"\(ETB\d+\):(\d+)", run("debugfs", "-R", "stat /f", "e.img").stdout)[1])
        folder = int(run("debugfs", "-R", "blocks /d", "e.img").stdout.split()[0])
        inode = self.inode("e.img", "/f")
        with open("e.img", "rb") as f:
            image = f.read()
        for at, path in ((inode + 20, "/f"), (inode + 44, "/f"), (folder * KIB + 30, "/d"), (leaf * KIB + 700, "/f")):
            shutil.copyfile("e.img", "h.img")
            patch("h.img", at, bytes([image[at] ^ 1]))
            done = ours("cp", "-r", "-f", "raw", f"h.img:{path}", "out", code=1)
            self.assertRegex(done.stderr, r"inode \d+: .*checksum")
            self.assertFalse(os.path.isfile("out"))
            shutil.rmtree("out", ignore_errors=True)

    def test_tables_that_lead_round(self):
        """An extended partition that is in itself, and a GPT of more entries than there are bytes."""
        with open("d.img", "wb") as f:
            f.truncate(32 * MIB)
        run("sfdisk", "-q", "d.img", input="label: dos\nstart=2048,size=20M,type=5\nstart=4096,size=4M\n")
        with open("d.img", "rb") as f:
            f.seek(MIB + 446)
            first = f.read(16)
        patch("d.img", MIB + 446 + 16, first[:4] + b"\x05" + first[5:8] + struct.pack("<II", 0, 4096))
        done = quick("ls", "-f", "raw", "d.img")
        self.assertIn("has no end", done.stderr)
        run("sfdisk", "-q", "d.img", input="label: gpt\nsize=4M\n")
        with open("d.img", "rb") as f:
            data = f.read()
        for at in (512, len(data) - 512):
            header = bytearray(data[at:at + 92])
            struct.pack_into("<II", header, 80, 0xffffffff, 0x1000)
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(header))
            patch("d.img", at, header)
        self.assertIn("neither that nor its copy", quick("ls", "-f", "raw", "d.img", code=1).stderr)

    def test_torn_journal(self):
        """A transaction whose blocks do not fit their checksums does not count, and that is told."""
        os.makedirs("tree")
        make_ext("e.img", 16 * MIB, "-b", "1024", "-O", "metadata_csum,64bit")
        shutil.copyfile("e.img", "n.img")
        self.debugfs("n.img", "mkdir new")
        with open("e.img", "rb") as f, open("n.img", "rb") as g:
            pairs = enumerate(iter(lambda: (f.read(KIB), g.read(KIB)), (b"", b"")))
            blocks, data = zip(*[(str(i), b) for i, (a, b) in pairs if a != b])
        write("blocks", b"".join(data))
        self.debugfs("e.img", "journal_open -c -v 3", f"journal_write -b {','.join(blocks)} blocks", "journal_close")
        self.assertIn("new", ours("ls", "-f", "raw", "e.img", "/").stdout)
        with open("e.img", "rb") as f:
            image = f.read()
        for kind in (1, 2):  # the block that lists the others, and the one that ends it
            shutil.copyfile("e.img", "h.img")
            at = image.index(struct.pack(">II", 0xc03b3998, kind))
            patch("h.img", at + 60, bytes([image[at + 60] ^ 1]))
            done = ours("ls", "-f", "raw", "h.img", "/")
            self.assertNotIn("new", done.stdout)
            self.assertIn("does not fit its checksum", done.stderr)


if __name__ == "__main__":
    sys.exit(main())
