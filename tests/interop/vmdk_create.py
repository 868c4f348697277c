# SPDX-License-Identifier: MIT
"""Every subformat of VMDK of our making, before the peers, and a reader of streams of our own."""
import glob
import os
import re
import subprocess

from peers import (GIB, KIB, KINDS, MIB, PLATTER, Case, add_case, main, make_content, platter,
                   qemu_img, qemu_io, run, sha256, spread)
from vmdk_stream import Walk

SIZES = {"sector": 512, "short-grain": 64 * KIB - 512, "long-grain": 64 * KIB + 512,
         "ragged": 3 * MIB + 7 * 512, "short-piece": 2 * GIB - 512, "long-piece": 2 * GIB + 512,
         "5g": 5 * GIB}
PIECE = 2047 * MIB

SPARSE = ("monolithicSparse", "twoGbMaxExtentSparse")


def create(image, size, kind, *more, **options):
    options = ",".join([f"subformat={kind}", *(f"{k}={v}" for k, v in options.items())])
    platter("create", "-q", "-f", "vmdk", "-o", options, *more, image, *([size] if size else []))


def convert(source, image, kind, *more, **options):
    options = ",".join([f"subformat={kind}", *(f"{k}={v}" for k, v in options.items())])
    platter("convert", "-f", "raw", "-O", "vmdk", "-o", options, *more, source, image)


def content(size, seed):
    """Data at the front, at the very end, and across the border of two pieces."""
    make_content("content.raw", size, seed)
    if size > PIECE:
        with open("content.raw", "r+b") as f:
            f.seek(PIECE - 5000)
            f.write(b"border" * 2000)
    return "content.raw"


def empty(size):
    with open("empty.raw", "wb") as f:
        f.truncate(size)
    return "empty.raw"


def extents(size, kind):
    if not kind.startswith("twoGb"):
        return [size]
    return [min(PIECE, size - at) for at in range(0, size, PIECE)]


class Create(Case):
    def check_with_vmdkinfo(self, image, size, kind):
        said = run("vmdkinfo", image).stdout
        self.assertIn(f"Disk type:\t\t\t{KINDS[kind]}\n", said)
        sizes = [int(n) for n in re.findall(r"\((\d+) bytes\)", said)]
        self.assertEqual(sizes, [size, *extents(size, kind)])

    def made(self, size, kind, zeroed):
        """An empty image and one with content; both are also written by the peer, and by us."""
        more = {"zeroed_grain": zeroed} if zeroed else {}
        create("empty.vmdk", size, kind, **more)
        qemu_img("compare", "-f", "vmdk", "-F", "raw", "empty.vmdk", empty(size))
        convert(content(size, size), "ours.vmdk", kind, **more)
        self.check_written("ours.vmdk", "vmdk", "content.raw")
        self.check_with_vmdkinfo("ours.vmdk", size, kind)
        platter("compare", "-f", "vmdk", "-F", "raw", "ours.vmdk", "content.raw")
        if kind == "streamOptimized":
            Walk("empty.vmdk", "empty.raw", 0x30005 if zeroed == "on" else 0x30001)
            Walk("ours.vmdk", "content.raw", 0x30005 if zeroed == "on" else 0x30001)
        elif size < GIB:
            self.written("ours.vmdk", size)
        else:
            self.written_across_pieces("ours.vmdk", size)

    def written(self, image, size):
        qemu_io(image, "vmdk", *(f"write -P {i + 1} {off} {length}"
                                 for i, (off, length) in enumerate(spread(size, size, 9))))
        qemu_img("convert", "-O", "raw", image, "shadow.raw")
        self.poke(image, "vmdk", "shadow.raw", size)
        self.check_written(image, "vmdk", "shadow.raw")
        self.check_read(image, "vmdk", "shadow.raw")

    def written_across_pieces(self, image, size):
        """The peer's write over the border of two pieces, into the last sector, and into a hole."""
        writes = [f"write -P 7 {off} {length}" for off, length in
                  ((min(PIECE, size) - 70 * KIB, 140 * KIB), (size - 512, 512), (GIB + 512, 3072))
                  if off + length <= size]
        qemu_io(image, "vmdk", *writes)
        qemu_io("content.raw", "raw", *writes)
        platter("compare", "-F", "raw", image, "content.raw")

    def layout(self, size, zeroed):
        """Sparse files as they are made are the peer's to the byte, but for the descriptor. (At 4512
        MiB there is no room between the last table and the first grain.)"""
        options = f"zeroed_grain={zeroed},subformat="
        names = ["ours.mono", "peer.mono"]
        for maker, name in ((platter, "ours"), (qemu_img, "peer")):
            for kind, tag in (("monolithicSparse", "mono"), ("twoGbMaxExtentSparse", "split")):
                maker("create", "-q", "-f", "vmdk", "-o", options + kind, f"{name}.{tag}", size)
        if size <= PIECE:
            self.assertEqual(sha256("ours-s001.split"), sha256("peer-s001.split"))
            names.append("ours-s001.split")
        text = slice(512, 21 * 512)
        files = []
        for name in names:
            with open(name, "rb") as f:
                files.append(bytearray(f.read()))
                files[-1][text] = bytes(20 * 512)
        self.assertEqual(files[0], files[1])
        self.assertEqual(files[0], files[-1])
        self.assertEqual((files[0][4], files[0][8]), (2, 7) if zeroed == "on" else (1, 3))

    def test_no_bytes(self):
        """The peer makes such images, and opens none of its own."""
        for kind in KINDS:
            create("empty.vmdk", "0", kind)
            self.assertIn('"virtual-size": 0', platter("info", "--output=json", "empty.vmdk").stdout)
            platter("compare", "-F", "raw", "empty.vmdk", empty(0))
            convert("empty.raw", "again.vmdk", kind)
            platter("convert", "-O", "raw", "again.vmdk", "again.raw")
            self.assertEqual(os.path.getsize("again.raw"), 0)
        convert("empty.raw", "stream.vmdk", "streamOptimized")
        Walk("stream.vmdk", "empty.raw")

    # ---- streams --------------------------------------------------------------------------------

    def stream(self, size, fill):
        """Through a file and through a pipe, by one thread and by several: the same but the CID."""
        with open("content.raw", "wb") as f:
            fill(f)
            f.truncate(size)
        convert("content.raw", "file.vmdk", "streamOptimized", "-m", 1)
        walk = Walk("file.vmdk", "content.raw")
        with open("pipe.vmdk", "wb") as f:
            command = [PLATTER, "convert", "-m", "4", "-f", "raw", "-O", "vmdk", "-o",
                       "subformat=streamOptimized", "content.raw", "-"]
            ours = subprocess.Popen(command, stdout=subprocess.PIPE)
            subprocess.run(["cat"], stdin=ours.stdout, stdout=f, check=True)
            ours.stdout.close()
            self.assertEqual(ours.wait(60), 0)
        files = []
        for name in ("file.vmdk", "pipe.vmdk"):
            with open(name, "rb") as f:
                files.append(re.sub(rb"\nCID=.{8}\n", b"\nCID=\n", f.read(), count=1))
        self.assertEqual(files[0], files[1])
        self.check_written("pipe.vmdk", "vmdk", "content.raw")
        return walk

    def test_stream_that_does_not_shrink(self):
        size = 5 * 64 * KIB + 512
        walk = self.stream(size, lambda f: f.write(os.urandom(size)))
        self.assertEqual(len(walk.grains), 6)
        self.assertGreater(walk.longest, 64 * KIB)

    def test_stream_with_ranges_of_no_table(self):
        """Data in the ranges of tables 0, 3 and 4 (its last grain) of 6."""
        def fill(f):
            for at in (0, 3 * 32 * MIB, 5 * 32 * MIB - 64 * KIB):
                f.seek(at)
                f.write(b"x" * 1000)
        walk = self.stream(6 * 32 * MIB, fill)
        self.assertEqual(sorted(walk.gd), [0, 3, 4])

    def test_stream_of_a_full_table(self):
        walk = self.stream(32 * MIB, lambda f: f.write(b"full" * (8 * MIB)))
        self.assertEqual((len(walk.grains), len(walk.gd)), (512, 1))

    def test_walk_finds_harm(self):
        """The reader above is worth something: each of these is noticed."""
        size = 5 * 64 * KIB
        self.stream(size, lambda f: f.write(os.urandom(size)))
        with open("file.vmdk", "rb") as f:
            whole = f.read()
        for at in (4, 12, 48, 512 * 21, 65536, 65536 + 8, 65536 + 5000, len(whole) - 512,
                   len(whole) - 1024 + 56, len(whole) - 1536 + 12, len(whole) - 2048):
            harmed = bytearray(whole)
            harmed[at] ^= 1
            with open("harmed.vmdk", "wb") as f:
                f.write(harmed)
            with self.assertRaises(Exception, msg=f"byte {at}"):
                Walk("harmed.vmdk", "content.raw")

    # ---- chains -----------------------------------------------------------------------------------

    def chain(self, base):
        """Three images, each of them written by us and by the peer in turn."""
        size = 3 * MIB + 512
        convert(content(size, 3), "0.vmdk", base)
        below = "0.vmdk"
        for number, kind in enumerate(("twoGbMaxExtentSparse", "monolithicSparse",
                                       "twoGbMaxExtentSparse"), 1):
            image = f"{number}.vmdk"
            zeroed = {"zeroed_grain": "on"} if number == 2 else {}
            create(image, 0, kind, "-b", below, "-F", "vmdk", **zeroed)
            self.check_read(image, "vmdk")
            qemu_img("convert", "-O", "raw", image, "shadow.raw")
            self.poke(image, "vmdk", "shadow.raw", number)
            self.check_written(image, "vmdk", "shadow.raw")
            qemu_io(image, "vmdk", f"write -P {number} {number * 300}k 100k")
            below = image
        self.check_read(below, "vmdk")

    def test_only_what_differs(self):
        content(3 * MIB, 4)
        convert("content.raw", "base.vmdk", "vmfs")
        with open("content.raw", "r+b") as f:
            f.seek(MIB)
            f.write(b"other")
        for kind in SPARSE:
            convert("content.raw", "child.vmdk", kind, "-B", "base.vmdk", "-F", "vmdk")
            self.check_written("child.vmdk", "vmdk", "content.raw")
            files = glob.glob("child-s*") or ["child.vmdk"]
            self.assertEqual([os.path.getsize(f) for f in files], [128 * KIB])

    def test_stream_over_a_parent(self):
        """May be created, as the peer does; a copy would leave holes where the parent shows."""
        create("base.vmdk", MIB, "monolithicFlat")
        create("child.vmdk", 0, "streamOptimized", "-b", "base.vmdk", "-F", "vmdk")
        self.check_written("child.vmdk", "vmdk", empty(MIB))


for size_name, bytes_of in SIZES.items():
    for kind in KINDS:
        for zeroed_grain in ("on", "off") if kind in (*SPARSE, "streamOptimized") else ("",):
            if bytes_of < GIB or zeroed_grain != "on":
                add_case(Create, f"{size_name}-{kind}-{zeroed_grain}", Create.made, bytes_of, kind,
                         zeroed_grain)
for bytes_of in (512, 33 * MIB, 100000 * KIB, GIB, PIECE, 4512 * MIB):
    for zeroed_grain in ("on", "off"):
        add_case(Create, f"layout-{bytes_of}-{zeroed_grain}", Create.layout, bytes_of, zeroed_grain)
for kind in KINDS:
    add_case(Create, f"chain-over-{kind}", Create.chain, kind)

main()
