# SPDX-License-Identifier: MIT
"""platter ls and platter cp: file systems of e2fsprogs, dosfstools and mtools, tables of sfdisk, in disks
of every format, whole, damaged and hostile."""
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import zlib

from nbd_servers import nbdkit
from peers import GIB, KIB, MIB, Case, add_case, first_difference, main, platter, qemu_img, run

SECONDS = 1_600_000_000


def ours(*argv, **more):
    return platter(*argv, **more)


def write(path, data, mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def set_times(folder):
    """Whole, even seconds, all different: what every file system here can keep."""
    count = 0
    for path, folders, files in os.walk(os.fsencode(folder), topdown=False):
        for name in [*sorted(folders), *sorted(files), b""]:
            count += 2
            os.utime(os.path.join(path, name).rstrip(b"/"), (SECONDS + count, SECONDS + count),
                     follow_symlinks=False)


def make_tree(top, rng):
    """Files as Linux has them."""
    os.makedirs(f"{top}/etc/systemd")
    os.makedirs(f"{top}/var/many")
    os.makedirs(f"{top}/{'deep/' * 60}")
    write(f"{top}/etc/fstab", b"/dev/sda2 / ext4 defaults 0 1\n")
    write(f"{top}/etc/shadow", b"root:*\n", 0o600)
    write(f"{top}/etc/empty", b"")
    write(f"{top}/etc/script", b"#!/bin/sh\n" + b"x" * 150, 0o4755)
    write(f"{top}/{'deep/' * 60}file", b"deep")
    write(f"{top}/var/noise", rng.randbytes(700_001))
    write(os.fsencode(f"{top}/") + b"\xff\xfe not UTF-8\n\x1b[31m", b"odd")
    write(f"{top}/{'ä' * 127}", b"long name")
    for i in range(3000):
        write(f"{top}/var/many/{i:05}-{'n' * (i % 40)}", b"%d" % i if i % 10 == 0 else b"")
    for name, size in (("fragments", 20 * MIB), ("sparse", 3 * GIB)):
        with open(f"{top}/var/{name}", "wb") as f:
            for at in range(0, size, 64 * KIB if size < GIB else 500 * MIB):
                f.seek(at)
                f.write(rng.randbytes(5000))
            f.truncate(size)
    os.symlink("../etc/fstab", f"{top}/var/relative")
    os.symlink("/etc/shadow", f"{top}/var/absolute")
    os.symlink("../" * 90 + "etc/fstab", f"{top}/var/long")
    os.symlink("nowhere", f"{top}/var/dangling")
    os.symlink("var", f"{top}/v")
    os.symlink("round", f"{top}/round")
    os.chmod(f"{top}/var/many", 0o1777)
    set_times(top)


class FilesCase(Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(self.id())
        os.umask(0o022)

    def check_tree(self, ours_, theirs, links=True, modes=True):
        """Two trees, by name, kind, mode, time, target and bytes."""
        ours_, theirs = os.fsencode(ours_), os.fsencode(theirs)
        self.assertEqual(sorted(os.listdir(ours_)), sorted(os.listdir(theirs)))
        for name in os.listdir(theirs):
            one, other = (os.path.join(x, name) for x in (ours_, theirs))
            a, b = os.lstat(one), os.lstat(other)
            self.assertEqual(stat.S_IFMT(a.st_mode), stat.S_IFMT(b.st_mode), name)
            if modes:
                self.assertEqual(int(a.st_mtime), int(b.st_mtime), name)
                self.assertEqual(stat.S_IMODE(a.st_mode), stat.S_IMODE(b.st_mode) & 0o1777, name)
            if stat.S_ISDIR(b.st_mode):
                self.check_tree(one, other, links, modes)
            elif stat.S_ISLNK(b.st_mode):
                self.assertEqual(os.readlink(one), os.readlink(other))
            else:
                self.assertIsNone(first_difference(one, other), name)

    def check_copy(self, image, tree, *options, code=0):
        """All of a file system is what it was made from."""
        shutil.rmtree("copy", ignore_errors=True)
        ours("cp", "-rp", "-q", *options, "--path", "/", image, "copy", code=code)
        shutil.rmtree("copy/lost+found", ignore_errors=True)
        if "lost+found" not in os.listdir(tree):
            os.utime(tree, (SECONDS, SECONDS))
        self.check_tree("copy", tree)

    def list_all(self, image, *options, code=0):
        """Path -> what is known of it."""
        done = ours("ls", "-q", "-R", "--output=json", *options, image, "/", code=code)
        return {o["path"]: o for o in json.loads(done.stdout)}

    def debugfs(self, image, *commands):
        script = "\n".join(commands)
        done = run("debugfs", "-w", "-f", "/dev/stdin", image, input=script)
        self.assertNotIn("not found", done.stderr)
        return done.stdout

    def rename(self, image, before, after):
        """Names as they stand in the folder."""
        with open(image, "r+b") as f:
            data = f.read()
            self.assertEqual(len(before), len(after))
            self.assertEqual(data.count(before), 1)
            f.seek(data.index(before))
            f.write(after)


def make_ext(image, size, *options, tree="tree", noise=False):
    """ext4, if the options do not say otherwise: a file system in a file, which may be full of noise before."""
    with open(image, "wb") as f:
        if noise:
            for _ in range(size // MIB):
                f.write(os.urandom(MIB))
        f.truncate(size)
    kind = () if "-t" in options else ("-t", "ext4")
    run("mke2fs", "-q", "-F", *kind, "-E", "nodiscard", *options, "-d", tree, image)


EXT = {
    "ext2 1 KiB": ("-t", "ext2", "-b", "1024"),
    "ext2 4 KiB": ("-t", "ext2", "-b", "4096", "-I", "128"),
    "ext3": ("-t", "ext3"),
    "ext4": ("-t", "ext4"),
    "ext4 all": ("-t", "ext4", "-b", "1024", "-O", "inline_data,64bit,metadata_csum,metadata_csum_seed,casefold"),
    "ext4 none": ("-t", "ext4", "-b", "2048", "-O", "^64bit,^metadata_csum,^flex_bg,^has_journal,^huge_file"),
    "ext4 bigalloc": ("-t", "ext4", "-O", "bigalloc"),
}


class Ext(FilesCase):
    @classmethod
    def setUpClass(cls):
        cls.kept = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"platter-files-{os.getpid()}")
        make_tree(cls.kept, random.Random(1))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.kept)

    def check_kind(self, options):
        make_ext("e.img", 80 * MIB, *options, tree=self.kept)
        if "inline_data" in options[-1]:  # with which mke2fs forgets holes at the end
            self.debugfs("e.img", f"sif /var/sparse size {3 * GIB}", f"sif /var/fragments size {20 * MIB}")
        run("e2fsck", "-fyD", "e.img", code={0, 1})  # large folders get an index
        platter("convert", "-f", "raw", "-O", "qcow2", "e.img", "e.qcow2")
        self.check_copy("e.qcow2", self.kept)
        for name in ("sparse", "fragments"):
            self.assertLess(os.stat(f"copy/var/{name}").st_blocks * 512, 6 * MIB)
        listed = self.list_all("e.qcow2")
        self.assertEqual(listed["/var/sparse"]["size"], 3 * GIB)
        self.assertEqual(listed["/etc/script"]["mode"], "4755")
        self.assertEqual(len([p for p in listed if p.startswith("/var/many/")]), 3000)
        self.assertEqual(ours("cp", "e.qcow2:/v/absolute", "-").stdout, "root:*\n")

    def test_uninitialised(self):
        """What was allocated and never written is zeros, whatever stands there."""
        os.mkdir("small")
        make_ext("e.img", 32 * MIB, tree="small", noise=True)
        self.debugfs("e.img", "write /dev/null f", "fallocate f 0 999", "sif f size 1000000")
        ours("cp", "-f", "raw", "e.img:/f", "f")
        with open("f", "rb") as f:
            self.assertEqual(f.read(), bytes(1000000))
        self.assertEqual(os.stat("f").st_blocks, 0)

    def test_facts(self):
        """Times before 1970, past 2038, and below a second; owners past 65535; devices."""
        os.mkdir("small")
        write("small/f", b"f")
        make_ext("e.img", 32 * MIB, "-I", "256", tree="small")
        self.debugfs("e.img", "sif f mtime @0xfffffff0", "sif f mtime_extra 0", "sif f uid 70000",
                     "sif f gid 4000000000", "mknod c c 4 65", "mknod b b 259 255", "mknod p p")
        facts = self.list_all("e.img", "-f", "raw")
        self.assertEqual(facts["/f"]["mtime"], "1969-12-31T23:59:44.000000000Z")
        self.assertEqual((facts["/f"]["uid"], facts["/f"]["gid"]), (70000, 4000000000))
        self.assertEqual([(facts[p]["type"], facts[p]["major"], facts[p]["minor"]) for p in ("/c", "/b")],
                         [("character-device", 4, 65), ("block-device", 259, 255)])
        self.debugfs("e.img", "sif f mtime @0x10", f"sif f mtime_extra {123456789 << 2 | 1}")
        self.assertEqual(self.list_all("e.img", "-f", "raw")["/f"]["mtime"],
                         "2106-02-07T06:28:32.123456789Z")
        done = ours("cp", "-rp", "-f", "raw", "e.img:/", "out", code=5)
        self.assertEqual(done.stderr.count("it is left out"), 3)
        self.assertEqual(os.stat("out/f").st_mtime_ns, (2**32 + 16) * 10**9 + 123456789)
        self.assertEqual(sorted(os.listdir("out")), ["f", "lost+found"])


for title, arguments in EXT.items():
    add_case(Ext, title, Ext.check_kind, arguments)


class Journal(FilesCase):
    """A disk that was copied while it was mounted: debugfs writes what a kernel would have."""

    def setUp(self):
        super().setUp()
        os.makedirs("tree/etc")
        for i in range(60):
            write(f"tree/etc/{i}", b"old %d\n" % i)

    def changed(self, before, after, size):
        """The blocks in which two images differ: their numbers, and the new ones."""
        with open(before, "rb") as f, open(after, "rb") as g:
            pairs = enumerate(iter(lambda: (f.read(size), g.read(size)), (b"", b"")))
            return zip(*[(str(i), b) for i, (a, b) in pairs if a != b])

    def journal(self, image, options, *transactions):
        """Each is (blocks, their bytes, blocks to revoke, committed)."""
        lines = [f"journal_open {options}"]
        for n, (blocks, data, revoked, committed) in enumerate(transactions):
            write(f"blocks{n}", b"".join(data))
            lines.append("journal_write" + (f" -b {','.join(blocks)}" if blocks else "") +
                         (f" -r {','.join(revoked)}" if revoked else "") +
                         ("" if committed else " -c") + f" blocks{n}")
        said = self.debugfs(image, *lines, "journal_close")
        self.assertNotIn("rror", said)

    def states(self, size, features):
        """Images of three states, each of which the next one changes."""
        make_ext("0.img", 16 * MIB, "-b", size, "-O", features)
        for n in (1, 2):
            shutil.copyfile(f"{n - 1}.img", f"{n}.img")
            write("new", b"new %d\n" % n * 3000)
            self.debugfs(f"{n}.img", f"rm /etc/{n}", f"write new /etc/new{n}", f"mkdir /etc/more{n}",
                         f"symlink /etc/link{n} new{n}")
        self.listed = [ours("ls", "-R", "-f", "raw", f"{n}.img", "/").stdout for n in range(3)]
        self.assertEqual(len(set(self.listed)), 3)

    def check_replay(self, size, features, options):
        self.states(size, features)
        parts = [(*self.changed(f"{n}.img", f"{n + 1}.img", size), (), True) for n in (0, 1)]
        for count in (1, 2):
            shutil.copyfile("0.img", "d.img")
            self.journal("d.img", options, *parts[:count])
            with open("d.img", "rb") as f:
                before = f.read()
            done = ours("ls", "-R", "-f", "raw", "d.img", "/")
            self.assertEqual((done.stdout, done.stderr), (self.listed[count], ""))
            got = ours("cp", "-f", "raw", f"d.img:/etc/link{count}", "-").stdout
            self.assertEqual(got, f"new {count}\n" * 3000)
            with open("d.img", "rb") as f:
                self.assertEqual(f.read(), before)
            run("e2fsck", "-fy", "d.img", code={0, 1})  # which replays as well
            self.assertEqual(ours("ls", "-R", "-f", "raw", "d.img", "/").stdout, self.listed[count])
        # A transaction without its end does not count.
        shutil.copyfile("0.img", "d.img")
        self.journal("d.img", options, parts[0], (*parts[1][:3], False))
        self.assertEqual(ours("ls", "-R", "-f", "raw", "d.img", "/").stdout, self.listed[1])

    def test_revoked(self):
        """What a later transaction revokes is not applied; what is written after that is."""
        self.states(1024, "^metadata_csum")
        blocks, data = self.changed("0.img", "1.img", 1024)
        for later, state in (((), 0), (((blocks, data, (), True),), 1)):
            shutil.copyfile("0.img", "d.img")
            self.journal("d.img", "", (blocks, data, (), True), ((), (), blocks, True), *later)
            self.assertEqual(ours("ls", "-R", "-f", "raw", "d.img", "/").stdout, self.listed[state])

    def test_damaged(self):
        """A block that does not fit its checksum: the files are as they stand, and that is told."""
        self.states(1024, "metadata_csum")
        blocks, data = self.changed("0.img", "1.img", 1024)
        shutil.copyfile("0.img", "d.img")
        self.journal("d.img", "-c -v 3", (blocks, data, (), True))
        with open("d.img", "r+b") as f:
            image = f.read()
            f.seek(next(image.index(block) for block in data if image.count(block) == 1) + 100)
            f.write(b"X")
        done = ours("ls", "-R", "-f", "raw", "d.img", "/")
        self.assertEqual(done.stdout, self.listed[0])
        self.assertIn("journal is not applied", done.stderr)

    def test_flipped(self):
        """Seeded damage of journals."""
        self.states(1024, "^metadata_csum")
        parts = [(*self.changed(f"{n}.img", f"{n + 1}.img", 1024), (), True) for n in (0, 1)]
        self.journal("0.img", "", *parts)
        with open("0.img", "rb") as f:
            data = f.read()
        at = [i for i in range(0, len(data), 1024) if data[i:i + 4] == b"\xc0\x3b\x39\x98"]
        self.assertGreater(len(at), 4)
        for _ in range(60):
            harmed = bytearray(data)
            for _ in range(self.rng.choice((1, 2, 10))):
                spot = self.rng.choice(at) + self.rng.randrange(self.rng.choice((16, 100)))
                harmed[spot] = self.rng.choice((0, 0xff, 0x80, harmed[spot] ^ 1 << self.rng.randrange(8)))
            write("h.img", harmed)
            ours("ls", "-R", "-f", "raw", "h.img", "/", code={0, 1})


for title, arguments in {"plain": (1024, "^metadata_csum,^64bit", ""), "64bit": (4096, "^metadata_csum,64bit", ""),
                         "sums 2": (1024, "metadata_csum,64bit", "-c -v 2"),
                         "sums 3": (1024, "metadata_csum,64bit", "-c -v 3"),
                         "sums 3 of 32 bits": (4096, "metadata_csum,^64bit", "-c -v 3")}.items():
    add_case(Journal, title, Journal.check_replay, *arguments)


def make_fat_tree(top, rng):
    os.makedirs(f"{top}/EFI/Boot")
    os.makedirs(f"{top}/Ein Ordner mit langem Namen")
    write(f"{top}/EFI/Boot/bootx64.efi", rng.randbytes(150_000))
    write(f"{top}/EFI/UPPER.TXT", b"upper")
    write(f"{top}/empty", b"")
    write(f"{top}/read-only", b"r", 0o444)
    write(f"{top}/Ein Ordner mit langem Namen/Grüße, Γειά σου.{'x' * 150}", b"long")
    for i in range(300):
        write(f"{top}/EFI/{i} of many, with a name of some length", b"%d" % i)
    set_times(top)


class Fat(FilesCase):
    def fill(self, image, offset=""):
        env = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for name in sorted(os.listdir("tree")):
            run("mcopy", "-s", "-m", "-i", image + offset, f"tree/{name}", "::/", env=env)

    def check_kind(self, bits, size, *options):
        os.environ["TZ"] = "UTC"
        make_fat_tree("tree", self.rng)
        with open("f.img", "wb") as f:
            f.truncate(size)
        run("mkfs.vfat", "-F", bits, "-n", "BOOT", *options, "f.img")
        # In the gaps that these leave the others lie in pieces.
        for i in range(40):
            write("gap", b"g" * 9000)
            run("mcopy", "-i", "f.img", "gap", f"::gap{i}")
        run("mdel", "-i", "f.img", *(f"::gap{i}" for i in range(0, 40, 2)))
        self.fill("f.img")
        run("mdel", "-i", "f.img", "::gap*")
        for name in os.listdir("tree"):  # folders: mcopy gives them the time of the copy
            if os.path.isdir(f"tree/{name}"):
                self.assertIn(f"/{name}", self.list_all("f.img", "-f", "raw"))
        ours("cp", "-rp", "-f", "raw", "--path", "/", "f.img", "copy")
        self.check_tree("copy", "tree", modes=False)
        for path in ("EFI/Boot/bootx64.efi", "EFI/UPPER.TXT", "empty"):
            self.assertEqual(os.stat(f"copy/{path}").st_mtime, os.stat(f"tree/{path}").st_mtime)
        self.assertEqual(ours("cp", "-f", "raw", "f.img:/efi/upper.txt", "-").stdout, "upper")
        self.assertEqual(ours("cp", "-f", "raw", "f.img:/EINORD~1/", "short", "-r").stdout, "")
        table = json.loads(ours("ls", "-f", "raw", "--output=json", "f.img").stdout)
        self.assertEqual((table["partitions"][0]["file-system"], table["partitions"][0]["label"]),
                         ("vfat", "BOOT"))

    def test_read_only(self):
        make_fat_tree("tree", self.rng)
        with open("f.img", "wb") as f:
            f.truncate(4 * MIB)
        run("mkfs.vfat", "f.img")
        self.fill("f.img")
        run("mattrib", "-i", "f.img", "+r", "::read-only")
        self.assertEqual(self.list_all("f.img", "-f", "raw")["/read-only"]["mode"], "0444")

    def test_pairs_of_units(self):
        """A character that takes two units of UTF-16, which mtools cannot write."""
        with open("f.img", "wb") as f:
            f.truncate(4 * MIB)
        run("mkfs.vfat", "f.img")
        write("x", b"x")
        run("mcopy", "-i", "f.img", "x", "::abCDe and more")
        with open("f.img", "r+b") as f:
            data = f.read()
            at = data.index("CD".encode("utf-16-le"))
            f.seek(at)
            f.write("😀".encode("utf-16-le"))
        self.assertIn("/ab😀e and more", self.list_all("f.img", "-f", "raw"))

    def test_name_of_another(self):
        """A long name in front of a file that was put there by a system without long names."""
        with open("f.img", "wb") as f:
            f.truncate(4 * MIB)
        run("mkfs.vfat", "f.img")
        write("x", b"x")
        run("mcopy", "-i", "f.img", "x", "::a long name")
        self.assertEqual(list(self.list_all("f.img", "-f", "raw")), ["/a long name"])
        self.rename("f.img", b"ALONGN~1   ", b"OTHER   TXT")
        self.assertEqual(list(self.list_all("f.img", "-f", "raw")), ["/OTHER.TXT"])

    def test_loops(self):
        """A chain that goes round, one that ends early, one that leads nowhere."""
        with open("f.img", "wb") as f:
            f.truncate(4 * MIB)
        run("mkfs.vfat", "-F", "16", "-s", "1", "-f", "1", "-R", "1", "-a", "f.img")
        write("x", os.urandom(20_000))
        run("mcopy", "-i", "f.img", "x", "::first")
        run("mcopy", "-i", "f.img", "x", "::second")
        for entry, word in ((2, "no end|bytes"), (0xffff, "clusters only"), (0xfff0, "which is none"), (0, "is none")):
            with open("f.img", "r+b") as f:
                f.seek(512 + 2 * 10)
                f.write(struct.pack("<H", entry))
            done = ours("cp", "-f", "raw", "f.img:/first", "f.img:/second", ".", code={0, 1})
            if entry != 2:
                self.assertRegex(done.stderr, word)
                self.assertFalse(os.path.exists("first"))
            self.assertTrue(os.path.exists("second"))
            for name in ("first", "second"):
                if os.path.exists(name):
                    os.unlink(name)


for fat_bits, fat_size, fat_options in ((12, 4 * MIB, ("-s", "4")), (16, 20 * MIB, ()),
                                        (32, 48 * MIB, ("-s", "1")), (32, 170 * MIB, ("-S", "2048"))):
    add_case(Fat, f"FAT{fat_bits} {fat_size >> 20}", Fat.check_kind, fat_bits, fat_size, *fat_options)


def write_gpt(disk, sector, parts):
    """A GPT with sectors of any size: [(first, last)], Linux's type."""
    size = os.stat(disk).st_size // sector
    kind = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
    entries = b"".join(kind + os.urandom(16) + struct.pack("<QQQ", first, last, 0) + bytes(72)
                       for first, last in parts).ljust(128 * 128, b"\0")
    taken = len(entries) // sector

    def header(own, other, array):
        def build(crc):
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, own, other, 2 + taken,
                               size - taken - 2, b"d" * 16, array, 128, 128, zlib.crc32(entries))
        return build(zlib.crc32(build(0)))
    with open(disk, "r+b") as f:
        f.seek(446)
        f.write(struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xee, 255, 255, 255, 1, min(size - 1, 2**32 - 1)))
        f.seek(510)
        f.write(b"\x55\xaa")
        for at, what in ((sector, header(1, size - 1, 2)), (2 * sector, entries),
                         ((size - 1 - taken) * sector, entries),
                         ((size - 1) * sector, header(size - 1, 1, size - 1 - taken))):
            f.seek(at)
            f.write(what)


class Tables(FilesCase):
    def setUp(self):
        super().setUp()
        os.makedirs("tree/etc")
        write("tree/etc/name", b"root\n")
        make_ext("e.img", 8 * MIB, tree="tree")

    def sfdisk(self, disk, size, script):
        with open(disk, "wb") as f:
            f.truncate(size)
        run("sfdisk", "-q", disk, input=script)

    def put(self, disk, offset, source="e.img"):
        run("dd", f"if={source}", f"of={disk}", "bs=64K", f"seek={offset}", "oflag=seek_bytes",
            "conv=notrunc")

    def table(self, disk, *options):
        done = ours("ls", "-f", "raw", "--output=json", *options, disk)
        return json.loads(done.stdout), done.stderr

    def check_same(self, disk):
        """As sfdisk lists it."""
        theirs = json.loads(run("sfdisk", "--json", disk).stdout)["partitiontable"]
        table, _ = self.table(disk)
        self.assertEqual(table["table"], {"gpt": "gpt", "dos": "mbr"}[theirs["label"]])
        for own, other in zip(table["partitions"], theirs["partitions"], strict=True):
            self.assertEqual((own["start"], own["length"], f"{disk}{own['number']}"),
                             (other["start"] * 512, other["size"] * 512, other["node"]))
            if table["table"] == "gpt":
                self.assertEqual((own["type-id"].upper(), own["partition-uuid"].upper(), own["name"]),
                                 (other["type"], other["uuid"], other.get("name")))
            else:
                self.assertEqual(int(own["type-id"], 16), int(other["type"], 16))
        return table

    def test_gpt(self):
        self.sfdisk("d.img", 64 * MIB, "label: gpt\nsize=9M,type=U,name=EFI\nsize=9M,name=\"Grüße 😀\"\n"
                    "size=10M\nstart=50M,size=9M\n")
        for at in (10 * MIB, 50 * MIB):
            self.put("d.img", at)
        self.check_same("d.img")
        self.assertEqual(ours("cp", "-f", "raw", "--partition", 2, "d.img:/etc/name", "-").stdout, "root\n")
        done = ours("cp", "-f", "raw", "d.img:/etc/name", "-", code=1)
        self.assertIn("2 (ext4), 4 (ext4)", done.stderr)
        whole = self.table("d.img")[0]
        for at, length in ((512 + 40, 8), (1024 + 130, 4), (512, 8)):  # header, entries, signature
            with open("d.img", "r+b") as f:
                f.seek(at)
                before = f.read(length)
                f.seek(at)
                f.write(b"\xee" * length)
            table, said = self.table("d.img")
            self.assertEqual(table, whole)
            self.assertIn("first GPT is damaged", said)
            with open("d.img", "r+b") as f:
                f.seek(at)
                f.write(before)
        with open("d.img", "r+b") as f:
            f.seek(600)
            f.write(b"damage")
            f.seek(64 * MIB - 512 + 20)
            f.write(b"damage")
        self.assertIn("neither", ours("ls", "-f", "raw", "d.img", code=1).stderr)

    def test_entries_that_cannot_be(self):
        """Outside of what the header says that there is for partitions: left out, and told."""
        sectors = 16 * KIB
        for first, last in ((33, 4095), (5000, 4999), (5000, sectors - 33), (5000, 2**64 - 1), (sectors, sectors + 9)):
            with open("d.img", "wb") as f:
                f.truncate(512 * sectors)
            write_gpt("d.img", 512, [(34, 4095), (first, last), (4096, sectors - 34)])
            table, said = self.table("d.img")
            self.assertEqual([p["number"] for p in table["partitions"]], [1, 3])
            self.assertIn(f"partition 2 is said to be from sector {first} to {last}, which cannot be", said)

    def test_mbr(self):
        self.sfdisk("d.img", 96 * MIB, "label: dos\nsize=9M,type=c\nsize=9M,type=82\nsize=60M,type=5\nsize=9M\n"
                    "size=9M\nsize=9M\nsize=5M,type=8e\n")
        for part in self.check_same("d.img")["partitions"]:
            if part["number"] == 6:
                self.put("d.img", part["start"])
        self.assertEqual(ours("cp", "-f", "raw", "d.img:/etc/name", "-").stdout, "root\n")
        extended = next(p["start"] for p in self.check_same("d.img")["partitions"] if p["number"] == 3)
        with open("d.img", "r+b") as f:  # the first table says that it is the next one
            f.seek(extended + 446 + 16 + 4)
            f.write(struct.pack("<BBBBII", 5, 0, 0, 0, 0, 100))
        table, said = self.table("d.img")
        self.assertIn("has no end", said)
        self.assertLess(len(table["partitions"]), 300)
        with open("d.img", "r+b") as f:
            f.seek(extended + 510)
            f.write(b"xx")
        table, said = self.table("d.img")
        self.assertIn("is damaged", said)
        self.assertEqual([p["number"] for p in table["partitions"]], [1, 2, 3, 4])

    def test_sectors_of_4096(self):
        with open("d.img", "wb") as f:
            f.truncate(32 * MIB)
        write_gpt("d.img", 4096, [(256, 256 + 2047), (4000, 4999)])
        self.put("d.img", MIB)
        table, _ = self.table("d.img")
        self.assertEqual((table["sector-size"], [(p["start"], p["length"]) for p in table["partitions"]]),
                         (4096, [(MIB, 8 * MIB), (4000 * 4096, 1000 * 4096)]))
        self.assertEqual(ours("cp", "-f", "raw", "d.img:/etc/name", "-").stdout, "root\n")
        with open("m.img", "wb") as f:
            f.seek(446)
            f.write(struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 0x83, 0, 0, 0, 256, 2048).ljust(64, b"\0") + b"\x55\xaa")
            f.truncate(32 * MIB)
        self.put("m.img", MIB)
        self.assertEqual(ours("cp", "-f", "raw", "m.img:/etc/name", "-").stdout, "root\n")

    def test_others(self):
        """File systems that cannot be read are named, and who reads them."""
        for at, mark, name in ((0, b"XFSB", "xfs"), (3, b"NTFS    ", "ntfs"), (65600, b"_BHRfS_M", "btrfs"),
                               (0, b"LUKS\xba\xbe", "luks"), (512, b"LABELONE", "lvm")):
            with open("o.img", "wb") as f:
                f.seek(at)
                f.write(mark)
                f.truncate(MIB)
            self.assertEqual(self.table("o.img")[0]["partitions"][0]["file-system"], name)
            done = ours("cp", "-f", "raw", "--no-libguestfs", "o.img:/etc/fstab", ".", code=1)
            self.assertRegex(done.stderr, f"has {name}, which takes libguestfs")


class Places(FilesCase):
    """One disk, in whatever way it is stored."""

    def setUp(self):
        super().setUp()
        for top, text in (("tree", b"new\n"), ("old", b"old\n")):
            os.makedirs(f"{top}/etc")
            write(f"{top}/etc/state", text)
            write(f"{top}/etc/noise", random.Random(5).randbytes(400_000))
            set_times(top)
            make_ext(f"{top}.img", 16 * MIB, tree=top)
        for top in ("old", "tree"):
            with open(f"{top}.raw", "wb") as f:
                f.truncate(20 * MIB)
            run("sfdisk", "-q", f"{top}.raw", input="label: gpt\nstart=1M,size=17M\n")
            run("dd", f"if={top}.img", f"of={top}.raw", "bs=1M", "seek=1", "conv=notrunc")

    def check(self, image, *options, tree="tree"):
        self.check_copy(image, tree, *options)
        self.assertEqual(ours("cp", "-q", *options, f"{image}:/etc/state", "-").stdout,
                         "new\n" if tree == "tree" else "old\n")

    def test_formats(self):
        for fmt, options in (("qcow2", ["-c"]), ("qcow2", []), ("vmdk", []), ("vmdk", ["-o", "subformat=streamOptimized"]),
                             ("qcow", [])):
            platter("convert", "-f", "raw", "-O", fmt, *options, "tree.raw", f"d.{fmt}")
            self.check(f"d.{fmt}")

    def test_snapshot(self):
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "old.raw", "d.qcow2")
        qemu_img("snapshot", "-c", "before", "d.qcow2")
        qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", "tree.raw", "d.qcow2")
        self.check("d.qcow2")
        self.check("d.qcow2@before", tree="old")
        self.check("d.qcow2", "--view", "before", tree="old")

    def test_archive(self):
        ours("archive", "create", "-f", "raw", "-q", "a.vma.zst", "-d", "drive-scsi0=tree.raw", "-d",
             "drive-scsi1=old.raw")
        self.check("a.vma.zst@drive-scsi0")
        self.check("a.vma.zst@drive-scsi1", tree="old")

    def test_server(self):
        platter("convert", "-f", "raw", "-O", "qcow2", "tree.raw", "d.qcow2")
        server = nbdkit("file", "d.qcow2")
        try:
            self.check(server.uri)
        finally:
            server.stop()


class Damaged(FilesCase):
    def test_cut(self):
        """Half of a disk: nothing, or an error."""
        os.makedirs("tree/etc")
        for i in range(30):
            write(f"tree/etc/{i}", self.rng.randbytes(200_000))
        make_ext("e.img", 16 * MIB, tree="tree")
        with open("e.img", "r+b") as f:
            f.truncate(4 * MIB)
        done = ours("cp", "-rp", "-f", "raw", "e.img:/etc", "out", code=1)
        self.assertIn("do not fit", done.stderr)
        self.assertEqual(sorted(os.listdir(".")), ["e.img", "tree"])

    def test_unreadable(self):
        """What cannot be read is not there, and all else is."""
        os.makedirs("tree/etc")
        for i in range(30):
            write(f"tree/etc/{i}", self.rng.randbytes(200_000))
        make_ext("e.img", 16 * MIB, tree="tree")
        with open("e.img", "rb") as f:
            data = f.read()
        with open("tree/etc/7", "rb") as f:
            at = data.index(f.read(1024)) + 65536
        platter("convert", "-f", "raw", "-O", "qcow2", "e.img", "d.qcow2")
        spot = next(e["offset"] for e in json.loads(platter("map", "--output=json", "d.qcow2").stdout)
                    if e["start"] <= at < e["start"] + e["length"])
        start = next(e["start"] for e in json.loads(platter("map", "--output=json", "d.qcow2").stdout)
                     if e.get("offset") == spot)
        # A cluster that is said to be compressed, and is noise.
        cluster = at // 65536
        with open("d.qcow2", "r+b") as f:
            f.seek(40)
            l1 = struct.unpack(">Q", f.read(8))[0]
            f.seek(l1)
            l2 = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
            f.seek(l2 + 8 * cluster)
            entry = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
            self.assertEqual(entry, spot + cluster * 65536 - start)
            f.seek(l2 + 8 * cluster)
            f.write(struct.pack(">Q", 1 << 62 | entry))
        done = ours("cp", "-rp", "d.qcow2:/etc", "out", code=1)
        self.assertIn("/etc/7: ", done.stderr)
        self.assertEqual(sorted(os.listdir("out"), key=int), [str(i) for i in range(30) if i != 7])
        os.unlink("tree/etc/7")
        self.check_tree("out", "tree/etc", modes=False)
        ours("cp", "d.qcow2:/etc/7", ".", code=1)
        ours("cp", "d.qcow2:/etc/7", "-", code=1)
        self.assertFalse(os.path.exists("7"))

    def test_loops(self):
        os.makedirs("tree/a/b")
        write("tree/a/b/f", b"f")
        make_ext("e.img", 8 * MIB, tree="tree")
        self.debugfs("e.img", "ln /a /a/b/again")
        done = ours("ls", "-R", "-f", "raw", "e.img", "/", code=1)
        self.assertIn("in itself", done.stderr)
        done = ours("cp", "-r", "-f", "raw", "e.img:/a", "out", code=1)
        self.assertIn("in itself", done.stderr)
        self.assertTrue(os.path.exists("out/b/f"))

    def test_names(self):
        """A link to elsewhere, and a folder of the same name behind it; names that are paths."""
        os.makedirs("outside")
        os.makedirs("tree/zzdir2")
        write("tree/zzdir2/owned", b"owned")
        os.symlink(os.path.realpath("outside"), "tree/zzdir1")
        write("tree/upXescape", b"escape")
        write("tree/nulXname", b"nul")
        write("tree/good", b"good")
        make_ext("e.img", 8 * MIB, "-O", "^metadata_csum", tree="tree")
        self.rename("e.img", b"zzdir2", b"zzdir1")
        self.rename("e.img", b"upXescape", b"../escape")
        self.rename("e.img", b"nulXname", b"nul\0name")
        os.mkdir("in")
        done = ours("cp", "-r", "-f", "raw", "e.img:/", "in/out", code=1)
        self.assertIn("a name that cannot be", done.stderr)
        self.assertIn("is no folder, and is left alone", done.stderr)
        self.assertEqual(os.listdir("outside"), [])
        self.assertEqual(os.listdir("in"), ["out"])
        self.assertEqual(set(os.listdir("in/out")), {"zzdir1", "good", "lost+found"})
        self.assertTrue(os.path.islink("in/out/zzdir1"))
        done = ours("ls", "-f", "raw", "e.img", "/", code=1)
        self.assertIn("../escape", done.stderr)
        self.assertNotIn("escape", done.stdout)

    def test_links_stay_inside(self):
        write("outside", b"outside")
        os.makedirs("tree/etc")
        write("tree/etc/f", b"inside\n")
        for name, target in (("up", "../../../../etc/f"), ("abs", "/etc/f"), ("one", "two"), ("two", "one"),
                             ("host", os.path.realpath("outside")), ("dir", "/../etc"), ("slash", "etc/f/")):
            os.symlink(target, f"tree/{name}")
        make_ext("e.img", 8 * MIB, tree="tree")
        for path in ("/up", "/abs", "/dir/f", "/etc/../etc/./f", "//etc//f", "/../../etc/f", "/dir/../abs"):
            self.assertEqual(ours("cp", "-f", "raw", "--path", path, "e.img", "-").stdout, "inside\n", path)
        for path, word in (("/one", "symbolic links"), ("/host", "there is no"), ("/etc/f/", "no folder"),
                           ("/etc/f/x", "no folder"), ("/etc", "no regular file"), ("/slash", "no folder")):
            done = ours("cp", "-f", "raw", f"e.img:{path}", "-", code=1)
            self.assertIn(word, done.stderr, path)
            self.assertEqual(done.stdout, "")
        os.makedirs("in/out")
        ours("cp", "-r", "-f", "raw", "e.img:/etc/..", "in/out")
        self.assertEqual(os.listdir("in"), ["out"])
        self.assertIn("etc", os.listdir("in/out"))

    def test_flipped(self):
        """Seeded damage: whatever it is, it ends, and in one of the ways that are written down."""
        os.makedirs("tree/etc/more")
        for i in range(40):
            write(f"tree/etc/{i}", self.rng.randbytes(3000))
            os.symlink("x" * (i * 5 + 1), f"tree/etc/more/link{i}")
        make_ext("e.img", 4 * MIB, "-b", "1024", "-O", "inline_data", tree="tree")
        make_ext("2.img", 4 * MIB, "-t", "ext2", "-b", "1024", tree="tree")
        with open("f.img", "wb") as f:
            f.truncate(2 * MIB)
        run("mkfs.vfat", "f.img")
        run("mcopy", "-s", "-i", "f.img", "tree/etc", "::/", code={0, 1})
        for image in ("e.img", "2.img", "f.img"):
            with open(image, "rb") as f:
                data = f.read()
            used = [at for at in range(0, len(data), 1024) if any(data[at:at + 1024])]
            for _ in range(40):
                harmed = bytearray(data)
                for _ in range(self.rng.choice((1, 3, 30))):
                    at = self.rng.choice(used[:200]) + self.rng.randrange(1024)
                    harmed[at] = self.rng.choice((0, 0xff, harmed[at] ^ 1 << self.rng.randrange(8)))
                with open("h.img", "wb") as f:
                    f.write(harmed)
                ours("ls", "-R", "-f", "raw", "h.img", "/", code={0, 1})
                ours("cp", "-rp", "-f", "raw", "h.img:/", "out", code={0, 1, 5})
                subprocess.run(["chmod", "-R", "u+rwx", "out"], capture_output=True, check=False)
                shutil.rmtree("out", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
