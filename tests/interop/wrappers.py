# SPDX-License-Identifier: MIT
"""Files as the programs that pack make them with all their options, read front to back; and what we
pack, read by these programs."""
import os
import subprocess

from peers import MIB, PLATTER, Case, main, make_content, platter, run, sha256
from vma_writer import archive, clusters

# Commands that pack standard input.
COMMANDS = [
    "zstd -c -1", "zstd -c -19", "zstd -c --fast=9", "zstd -c --no-check", "zstd -c -T2 --rsyncable",
    "zstd -c --long=24 -T2", "zstd -c --no-compress-literals", "pzstd -c -p 3",
    "zstd -c --stream-size=$(stat -c %s x.vma)",
    "gzip -c -1", "gzip -c -9n", "pigz -c -i -b 128", "pigz -c -p 3 -9", "pigz -c --alias name -M",
    "lzop -c -1", "lzop -c -9", "lzop -c -F", "lzop -c --crc32", "lzop -c --filter=1",
    "bzip2 -c -1", "bzip2 -c -9", "xz -c -0", "xz -c -0 -T2 --block-size=700KiB",
    "xz -c -0 --check=none", "xz -c -0 --check=crc32", "xz -c -0 --check=sha256",
    "xz -c --x86 --lzma2=preset=0", "xz -c --delta=dist=4 --lzma2=preset=0",
]
# What unpacks what we pack, and tells whether it is whole.
READERS = {"zst": ["zstd -d -q -c", "pzstd -d -q -c"], "gz": ["gzip -d -c", "pigz -d -c"]}


class Wrappers(Case):
    def setUp(self):
        super().setUp()
        make_content("1.raw", 6 * MIB + 512, 3)
        archive("x.vma", {1: ("a", 6 * MIB + 512)}, clusters(1, "1.raw"))

    def extract(self, command, *options, code=0):
        """What comes through a pipe from a shell command."""
        if os.path.exists("out.raw"):
            os.unlink("out.raw")
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as feeder:
            return platter("extract", "-q", "-d", "a", *options, "-", "out.raw",
                           stdin=feeder.stdout, code=code)

    def check_out(self, what):
        self.assertEqual(sha256("out.raw"), sha256("1.raw"), what)

    def test_every_option(self):
        for command in COMMANDS:
            self.extract(f"{command} < x.vma")
            self.check_out(command)

    def test_pieces_packed_alone(self):
        for command in ("zstd -c -1", "gzip -c -1", "lzop -c", "bzip2 -c -1", "xz -c -0"):
            pieces = f"split -b 1234567 --filter='{command}' x.vma"
            self.extract(pieces)
            self.check_out(pieces)

    def test_padding(self):
        self.extract("gzip -c x.vma; head -c 10240 /dev/zero")
        self.check_out("gzip on a tape")
        self.extract("xz -0c x.vma; head -c 512 /dev/zero")
        self.check_out("xz, padded")
        for command in ("zstd -c", "gzip -c", "lzop -c", "bzip2 -c", "xz -0c"):
            self.assertIn("input:", self.extract(f"{command} x.vma; echo more", code=range(1, 64)).stderr)
            self.assertFalse(os.path.exists("out.raw"), command)

    def test_large_windows(self):
        """What a frame wants to look back on has room in the memory that may be used, or none."""
        done = self.extract("zstd -c -1 --long < x.vma", code=range(1, 64))
        self.assertIn("raise the limit", done.stderr)
        self.extract("zstd -c -1 --long < x.vma", "--memory=512M")
        self.check_out("--long")

    def test_no_program(self):
        run("sh", "-c", "lzop -c x.vma > x.lzo")
        os.mkdir("none")
        done = platter("verify", "x.lzo", env={**os.environ, "PATH": "none"}, code=range(1, 64))
        self.assertIn("lzop is not installed", done.stderr)

    def test_who_stops_reading(self):
        """Only the beginning is wanted: that is no damage, and ends at once, whatever is to come."""
        for command in ("zstd -c -1", "gzip -c -1", "lzop -c", "bzip2 -c -1", "xz -c -0"):
            endless = f"(cat x.vma; cat /dev/zero) | {command} | {PLATTER} vma config -"
            done = run("sh", "-c", endless)
            self.assertEqual(done.stdout, "memory: 512\n", command)

    def test_ours(self):
        """What we pack is sound for the others, however many threads packed it."""
        for suffix, readers in READERS.items():
            name, again = f"ours.vma.{suffix}", f"again.vma.{suffix}"
            options = ["--compression=" + {"zst": "zstd", "gz": "gzip"}[suffix]]
            platter("vma", "repack", "-q", "-m", "1", *options, "x.vma", name)
            with open("x.vma", "rb") as f:
                platter("vma", "repack", "-q", "-m", "5", *options, "-", again, stdin=f)
            run("cmp", name, again)
            for reader in readers:
                run("sh", "-c", f"{reader} < {name} | cmp - x.vma")
            run(readers[0].split()[0], "-t", "-q", name)


main()
