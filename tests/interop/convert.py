# SPDX-License-Identifier: MIT
"""The options of convert, each against the peer: backing files, sparseness, threads, existing
targets, several sources, pipes."""
import glob
import json
import os
import subprocess

from peers import (KIB, MIB, PLATTER, Case, add_case, main, make_content, platter, qemu_img,
                   qemu_io, run, sha256)


def piped(*argv, to):
    """Our convert with its standard output led through a pipe into the file `to`."""
    with open(to, "wb") as f:
        ours = subprocess.Popen([PLATTER, "convert", *argv], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        subprocess.run(["cat"], stdin=ours.stdout, stdout=f, check=True)
        ours.stdout.close()
        said = ours.stderr.read().decode()
        ours.stderr.close()
        assert ours.wait(60) == 0, said


class Convert(Case):
    def setUp(self):
        super().setUp()
        make_content("content.raw", 5 * MIB + 512, 21)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "content.raw", "source.qcow2")

    def test_backing(self):
        """Only what differs from the backing file is stored."""
        for base_fmt, base_size in (("qcow2", 5 * MIB + 512), ("raw", 2 * MIB), ("vmdk", 7 * MIB)):
            make_content("base.raw", base_size, 22)
            run("dd", "if=content.raw", "of=base.raw", "bs=64k", "count=24", "conv=notrunc")
            qemu_img("convert", "-f", "raw", "-O", base_fmt, "base.raw", "base")
            before = sha256("base")
            platter("convert", "-O", "qcow2", "-B", "base", "-F", base_fmt, "source.qcow2",
                    "ours.qcow2")
            self.check_written("ours.qcow2", "qcow2", "content.raw")
            stored = json.loads(qemu_img("map", "--output=json", "ours.qcow2").stdout)
            self.assertNotEqual(stored[0]["depth"], 0, "what is equal was stored")
            self.assertEqual(sha256("base"), before)

    def test_backing_packed(self):
        make_content("base.raw", 5 * MIB + 512, 22)
        platter("convert", "-c", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "source.qcow2",
                "ours.qcow2")
        self.check_written("ours.qcow2", "qcow2", "content.raw")

    def test_sparse_sizes(self):
        """The larger the run that counts as a hole, the more is stored, and nothing changes."""
        taken = []
        for size in ("4k", "64k", "1M", "0"):
            platter("convert", "-S", size, "-f", "raw", "-O", "raw", "content.raw", "ours.raw")
            self.assertEqual(sha256("ours.raw"), sha256("content.raw"))
            taken.append(os.stat("ours.raw").st_blocks)
            platter("convert", "-S", size, "-f", "raw", "-O", "qcow2", "content.raw", "ours.qcow2")
            self.check_written("ours.qcow2", "qcow2", "content.raw")
        self.assertEqual(taken, sorted(taken))
        self.assertGreaterEqual(taken[-1] * 512, 5 * MIB + 512, "-S 0 left holes")

    def test_workers(self):
        """As many threads as you like, the same disk, and the same file in order."""
        sums = set()
        for workers in (1, 2, 7, 16):
            for extra in ([], ["-W"], ["-c"], ["-c", "-W"]):
                platter("convert", "-m", workers, *extra, "-O", "qcow2", "source.qcow2",
                        "ours.qcow2")
                qemu_img("check", "ours.qcow2")
                qemu_img("compare", "-F", "raw", "ours.qcow2", "content.raw")
                if not extra:
                    sums.add(sha256("ours.qcow2"))
        self.assertEqual(len(sums), 1, "the file depends on the number of threads")

    def test_existing_target(self):
        """-n writes over whatever is there, holes of the source included."""
        for fmt in ("raw", "qcow2", "vmdk"):
            make_content("old.raw", 5 * MIB + 512, 99)
            qemu_img("convert", "-f", "raw", "-O", fmt, "old.raw", "target")
            platter("convert", "-n", "-O", fmt, "source.qcow2", "target")
            self.check_written("target", fmt, "content.raw")

    def test_existing_empty_target(self):
        for fmt in ("raw", "qcow2", "vmdk"):
            qemu_img("create", "-q", "-f", fmt, "target", 5 * MIB + 512)
            platter("convert", "-n", "--target-is-zero", "-O", fmt, "source.qcow2", "target")
            self.check_written("target", fmt, "content.raw")
            os.unlink("target")

    def test_existing_target_of_other_size(self):
        qemu_img("create", "-q", "-f", "qcow2", "small.qcow2", MIB)
        done = platter("convert", "-n", "-O", "qcow2", "source.qcow2", "small.qcow2", code=1)
        self.assertIn("small.qcow2", done.stderr)
        qemu_img("check", "small.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "large.qcow2", 8 * MIB)
        qemu_io("large.qcow2", "qcow2", "write -P 3 5M 3M")
        platter("convert", "-n", "-O", "qcow2", "source.qcow2", "large.qcow2")
        qemu_img("check", "large.qcow2")
        theirs = "large-by-peer.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", theirs, 8 * MIB)
        qemu_io(theirs, "qcow2", "write -P 3 5M 3M")
        qemu_img("convert", "-n", "-O", "qcow2", "source.qcow2", theirs)
        qemu_img("compare", "large.qcow2", theirs)

    def test_existing_target_over_a_base(self):
        """Zeros of the source hide what the target's backing file has there."""
        make_content("base.raw", 5 * MIB + 512, 98)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "target.qcow2")
        platter("convert", "-n", "-O", "qcow2", "source.qcow2", "target.qcow2")
        self.check_written("target.qcow2", "qcow2", "content.raw")

    def test_several_sources(self):
        """One behind the other, whatever their sizes and formats."""
        pieces = []
        parts = [("raw", MIB), ("qcow2", 65024), ("vmdk", 3 * MIB + 512), ("qcow2", 512),
                 ("qcow2", 700 * KIB + 512)]
        for number, (fmt, size) in enumerate(parts):
            make_content("piece.raw", size, number)
            qemu_img("convert", "-f", "raw", "-O", fmt, "piece.raw", f"piece{number}")
            with open("piece.raw", "rb") as f:
                pieces.append(f.read())
        with open("whole.raw", "wb") as f:
            f.write(b"".join(pieces))
        names = [f"piece{n}" for n in range(len(pieces))]
        for fmt, more in (("raw", []), ("qcow2", []), ("qcow2", ["-c"]),
                          ("vmdk", ["-o", "subformat=streamOptimized"])):
            platter("convert", *more, "-O", fmt, *names, "ours")
            self.check_written("ours", fmt, "whole.raw")

    def test_raw_through_a_pipe(self):
        piped("-O", "raw", "source.qcow2", "-", to="ours.raw")
        self.assertEqual(sha256("ours.raw"), sha256("content.raw"))

    def test_stream_through_a_pipe(self):
        piped("-O", "vmdk", "-o", "subformat=streamOptimized", "source.qcow2", "-", to="ours.vmdk")
        self.check_written("ours.vmdk", "vmdk", "content.raw")
        self.check_read("ours.vmdk", "vmdk", "content.raw")

    def test_no_pipe_for_other_formats(self):
        for fmt in ("qcow2", "vmdk"):
            done = run("sh", "-c", f"'{PLATTER}' convert -O {fmt} source.qcow2 - | cat; "
                       f"'{PLATTER}' convert -O {fmt} source.qcow2 - > file", code=1)
            self.assertIn(fmt, done.stderr)
            self.assertEqual(done.stdout, "")
            self.assertEqual(os.path.getsize("file"), 0)

    def test_reader_of_the_pipe_goes_away(self):
        """An error that is told, not a signal and not a success."""
        for options in ([], ["-o", "subformat=streamOptimized"]):
            ours = subprocess.Popen([PLATTER, "convert", "-O", "vmdk" if options else "raw",
                                     *options, "source.qcow2", "-"], stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE)
            ours.stdout.read(100)
            ours.stdout.close()
            said = ours.stderr.read().decode()
            ours.stderr.close()
            self.assertEqual(ours.wait(60), 1, said)
            self.assertIn("platter:", said)

    def test_failure_leaves_the_old_target(self):
        with open("target", "w") as f:
            f.write("precious")
        run("truncate", "-s", "-300000", "source.qcow2")
        platter("convert", "-O", "qcow2", "source.qcow2", "target", code=1)
        with open("target") as f:
            self.assertEqual(f.read(), "precious")
        self.assertEqual(glob.glob("*partial*") + glob.glob(".*partial*"), [])

    def test_target_is_a_source(self):
        before = sha256("source.qcow2")
        platter("convert", "-n", "-O", "qcow2", "source.qcow2", "source.qcow2", code=1)
        self.assertEqual(sha256("source.qcow2"), before)


def matrix(self, source, target):
    """Every format into every format."""
    make_content("content.raw", 3 * MIB + 512, 31)
    formats = {"raw": ("raw", []), "qcow2": ("qcow2", []), "zlib": ("qcow2", ["-c"]),
               "zstd": ("qcow2", ["-c", "-o", "compression_type=zstd"]),
               "sparse": ("vmdk", []), "stream": ("vmdk", ["-o", "subformat=streamOptimized"])}
    source_fmt, source_how = formats[source]
    target_fmt, target_how = formats[target]
    qemu_img("convert", *source_how, "-f", "raw", "-O", source_fmt, "content.raw", "source")
    platter("convert", *target_how, "-f", source_fmt, "-O", target_fmt, "source", "ours")
    self.check_written("ours", target_fmt, "content.raw")


class Matrix(Case):
    pass


for from_what in ("raw", "qcow2", "zlib", "zstd", "sparse", "stream"):
    for to_what in ("raw", "qcow2", "zlib", "zstd", "sparse", "stream"):
        add_case(Matrix, f"{from_what}-to-{to_what}", matrix, from_what, to_what)

main()
