# SPDX-License-Identifier: MIT
"""What the tests of damage share: an image is broken in one way, and is then an error that says
where and what, with nothing left behind; or it still reads as it did before. Nothing in between."""
import atexit
import functools
import os
import re
import resource
import shutil
import tempfile

from peers import Case, Failed, platter, sha256, told

CPU_SECONDS = 1.0
MEMORY = 128 << 20

HOLE = re.compile(r"hole at offset (\d+), length (\d+): \S")


def measured(*argv):
    """Runs a program of ours; (exit code, what it said), within the bounds for hostile images."""
    done = platter(*argv, code=range(5))
    said = done.stdout + done.stderr
    if done.cpu_seconds > CPU_SECONDS:
        raise Failed(f"{told(done)}\ntook {done.cpu_seconds} s")
    if done.kib * 1024 > MEMORY + floor():
        raise Failed(f"{told(done)}\ntook {done.kib >> 10} MiB")
    return done.returncode, said


@functools.cache
def floor():
    """Memory that the program takes to say its version: the sanitizers' own."""
    return platter("--version").kib * 1024


class Bases:
    """Undamaged images of one format, made once; "raw" is what all of them hold."""

    def __init__(self, fmt):
        self.fmt = fmt
        self.dir = tempfile.mkdtemp(prefix="platter-golden-")
        atexit.register(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return bytearray(f.read())

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def damaged(self, base, harm, name=None):
        """A file with an image that harm() changed, or made another of."""
        image = self.read(base)
        answer = harm(image)
        name = name or f"broken.{self.fmt}"
        with open(name, "wb") as f:
            f.write(image if answer is None else answer)
        return name


def cut(to):
    """Harm: the file ends at `to`, a number or a function of the image."""
    return lambda image: image[:to(image) if callable(to) else to]


class Harm(Case):
    def listing(self):
        return sorted(os.listdir("."))

    def expect_error(self, image, fmt, raw, *words):
        """convert, digest and compare all fail; the sentence has the file's name, and each of
        `words` (regular expressions)."""
        before, there = sha256(image), self.listing()
        done = platter("convert", "-f", fmt, "-O", "raw", image, "target", code=1)
        for word in (re.escape(os.path.basename(image)), *words):
            self.assertRegex(done.stderr, word)
        self.assertNotIn("internal", done.stderr)
        platter("digest", "-f", fmt, image, code=1)
        platter("compare", "-f", fmt, "-F", "raw", image, raw, code={2, 3, 4})
        self.assertEqual(self.listing(), there, "something was left behind")
        self.assertEqual(sha256(image), before, "the source was changed")

    def expect_good(self, image, fmt, raw):
        platter("convert", "-f", fmt, "-O", "raw", image, "target")
        self.assertEqual(sha256("target"), sha256(raw), "wrong in silence")
        platter("compare", "-f", fmt, "-F", "raw", image, raw)
        os.unlink("target")

    def judge(self, image, fmt, raw, is_right=None):
        """An error with the file's name in it, or the right content. True if an error."""
        there = self.listing()
        code, said = measured("convert", "-q", "-f", fmt, "-O", "raw", image, "target")
        if code:
            self.assertRegex(said, r"^platter: ")
            self.assertIn(os.path.basename(image), said)
            self.assertEqual(self.listing(), there, "something was left behind")
            return True
        with open("target", "rb") as f, open(raw, "rb") as g:
            got, right = f.read(), g.read()
        os.unlink("target")
        if got != right and not (is_right and is_right(got, right)):
            self.fail(f"wrong in silence: {first_difference(got, right)}")
        return False

    def salvage_all(self, image, fmt, raw, code=0, *words):
        """Salvage brings everything; with code 4 it says that it cannot be sure of that."""
        before = sha256(image)
        done = platter("convert", "--salvage", "-f", fmt, "-O", "raw", image, "rescued", code=code)
        self.assertEqual(sha256(image), before)
        self.assertEqual(HOLE.findall(done.stderr), [], told(done))
        self.assertEqual(bool(done.stderr), code == 4, told(done))
        for word in words:
            self.assertRegex(done.stderr, word)
        with open("rescued", "rb") as f, open(raw, "rb") as g:
            got, right = f.read(), g.read()
        if got != right:
            self.fail(f"salvaged wrongly: {first_difference(got, right)}")
        os.unlink("rescued")

    def salvage(self, image, fmt, raw, some=True):
        """What is not listed as a hole is right, holes are zeros, and the exit code tells. With
        `some`, there is something good."""
        before = sha256(image)
        done = platter("convert", "--salvage", "-f", fmt, "-O", "raw", image, "rescued", code=4)
        self.assertEqual(sha256(image), before)
        with open("rescued", "rb") as f, open(raw, "rb") as g:
            got, right = bytearray(f.read()), bytearray(g.read())
        self.assertEqual(len(got), len(right))
        holes = [tuple(map(int, h)) for h in HOLE.findall(done.stderr)]
        self.assertTrue(holes, told(done))
        for at, length in holes:
            self.assertFalse(any(got[at:at + length]), f"hole at {at} has bytes")
            right[at:at + length] = bytes(length)
        if got != right:
            self.fail(f"salvaged wrongly: {first_difference(got, right)}")
        self.assertTrue(not some or any(right), "nothing was salvaged")
        os.unlink("rescued")
        return holes


class Damaged(Harm):
    """One base, one harm. `bases` is the class's own."""

    bases = None

    def is_error(self, base, harm, *words):
        self.expect_error(self.bases.damaged(base, harm), self.bases.fmt, self.bases.path("raw"),
                          *words)

    def is_hole(self, base, harm, *words, some=True):
        """Damage to a part: the error tells where, and salvage brings the rest."""
        image = self.bases.damaged(base, harm)
        self.expect_error(image, self.bases.fmt, self.bases.path("raw"), r"\d", *words)
        self.salvage(image, self.bases.fmt, self.bases.path("raw"), some)

    def is_found(self, base, harm, *words):
        """Damage to tables alone: an error, but salvage has the data from elsewhere."""
        image = self.bases.damaged(base, harm)
        self.expect_error(image, self.bases.fmt, self.bases.path("raw"), *words)
        self.salvage_all(image, self.bases.fmt, self.bases.path("raw"))

    def is_good(self, base, harm):
        """Odd, but nothing that a reader needs is wrong."""
        self.expect_good(self.bases.damaged(base, harm), self.bases.fmt, self.bases.path("raw"))

    def cuts(self, base, ends):
        """How many of the ends that a file may have are errors; none may read wrongly."""
        image = self.bases.read(base)
        failed = 0
        for end in ends(len(image)):
            broken = self.bases.damaged(base, cut(end))
            with self.subTest(end=end):
                failed += self.judge(broken, self.bases.fmt, self.bases.path("raw"))
        return failed

    def sweep(self, base, harm, length, values, is_right=None):
        """harm(value) for values that fit into a field of `length` bytes, its ends among them:
        never a crash, never much memory, never long."""
        top = 256 ** length - 1
        for value in sorted({min(v, top) for v in (
                0, 1, 2, 255, top, top // 2, top // 2 + 1, top - 1, *values(top))}):
            image = self.bases.damaged(base, harm(value))
            with self.subTest(value=hex(value)):
                self.judge(image, self.bases.fmt, self.bases.path("raw"), is_right)


def first_difference(a, b):
    if len(a) != len(b):
        return f"{len(a)} bytes instead of {len(b)}"
    return f"at {next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)}"


def limit_files():
    """A program that writes as much as a header claims is stopped."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 33, 1 << 33))


limit_files()
