# SPDX-License-Identifier: MIT
"""What the tests against the peers share: running programs, making content, and the checks.

The peers are qemu-img and qemu-io, used as black boxes. PLATTER and POKE name the programs that are
tested. A test works in a directory of its own, which goes when it ends. Every run of ours that ends
by a signal, or with a sanitizer's report, fails the test whatever it was for.
"""
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import unittest

import served

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

# The subformats of a VMDK, and what vmdkinfo calls them.
KINDS = {"monolithicSparse": "Monolithic sparse", "monolithicFlat": "Monolithic flat",
         "twoGbMaxExtentSparse": "2GB extent sparse", "twoGbMaxExtentFlat": "2GB extent flat",
         "streamOptimized": "Stream optimized", "vmfs": "VMFS flat"}

PLATTER = os.environ["PLATTER"]
POKE = os.environ.get("POKE")


class Failed(AssertionError):
    """A program did not end as it should."""


def told(done):
    return (f"{' '.join(map(str, done.args))}\nended with {done.returncode}\n"
            f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def run(*argv, code=0, **more):
    """Runs a program; `code` is the exit code that is right, or a set of them."""
    argv = [str(a) for a in argv]
    done = served.run(argv, **more) or subprocess.run(
        argv, capture_output=True, text=True, timeout=300, errors="replace", **more)
    right = code if isinstance(code, (set, range)) else {code}
    if done.returncode not in right or "Sanitizer" in done.stderr or \
            "runtime error:" in done.stderr:
        raise Failed(told(done) + f"\nexpected {sorted(right)}")
    return done


def platter(*argv, **more):
    return run(PLATTER, *argv, **more)


def qemu_img(*argv, **more):
    return run("qemu-img", *argv, **more)


def qemu_io(image, fmt, *commands, options=()):
    """Runs commands of qemu-io on an image; it says nothing of failures in its exit code alone."""
    argv = [part for command in commands for part in ("-c", command)]
    done = run("qemu-io", *options, "-t", "unsafe", "-f", fmt, image, *argv)
    for word in ("rror", "failed", "invalid", "can't"):
        if word in done.stdout + done.stderr:
            raise Failed(told(done))
    return done


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(MIB):
            h.update(block)
    return h.hexdigest()


def write_sparse(path, data):
    """A file with these bytes; blocks of zeros are holes."""
    with open(path, "wb") as f:
        zeros = bytes(64 * KIB)
        view = memoryview(data)
        for at in range(0, len(data), len(zeros)):
            block = view[at:at + len(zeros)]
            if block != zeros[:len(block)]:
                f.seek(at)
                f.write(block)
        f.truncate(len(data))


def data_of(f):
    """(start, end) of what is no hole in a file."""
    end, size = 0, os.fstat(f.fileno()).st_size
    while end < size:
        try:
            start = os.lseek(f.fileno(), end, os.SEEK_DATA)
        except OSError:  # ENXIO: no more
            return
        end = os.lseek(f.fileno(), start, os.SEEK_HOLE)
        yield start, end


def first_difference(one, other):
    """Where two files differ, in words, or None; what is a hole in both is not read."""
    with open(one, "rb") as f, open(other, "rb") as g:
        sizes = [os.fstat(x.fileno()).st_size for x in (f, g)]
        if sizes[0] != sizes[1]:
            return f"{sizes[0]} bytes instead of {sizes[1]}"
        done = 0
        for start, end in sorted([*data_of(f), *data_of(g)]):
            for at in range(max(start, done), end, MIB):
                a, b = (os.pread(x.fileno(), min(MIB, end - at), at) for x in (f, g))
                if a != b:
                    return f"at {at + next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)}"
            done = max(done, end)
    return None


def text_like(rng, length):
    """Bytes that compress to about a third."""
    words = [rng.randbytes(rng.randrange(2, 9)).hex().encode() for _ in range(200)]
    out = bytearray()
    while len(out) < length:
        out += b" ".join(rng.choices(words, k=200)) + b"\n"
    return bytes(out[:length])


def make_content(path, size, seed):
    """A raw disk: noise, text, written zeros and holes in turn; data at the very end."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        at = 0
        while at < size and at < 12 * MIB:
            length = min(rng.choice([512, 4096, 40000, 65536, 150 * KIB, 600 * KIB]), size - at)
            kind = rng.randrange(4)
            if kind < 3:
                f.seek(at)
                f.write([rng.randbytes, lambda n: text_like(rng, n), bytes][kind](length))
            at += length
        tail = min(size, 70001)
        f.seek(size - tail)
        f.write(text_like(rng, tail))
    return path


def spread(size, seed, count=24, align=512, most=200 * KIB):
    """Seeded ranges inside a disk, some of them up to its end; whole sectors."""
    rng = random.Random(seed)
    for i in range(count):
        length = min(rng.choice([align, 8 * align, 65536, rng.randrange(1, most)]), size)
        length = max(align, length // align * align)
        off = rng.randrange(0, max(1, (size - length) // align + 1)) * align
        if i % 8 == 7:
            off = (size - length) // align * align
        yield off, min(length, size - off)


def pieces(entries, starts):
    """A map cut at all of `starts`: (start, entry without its start and length)."""
    for entry in entries:
        end = entry["start"] + entry["length"]
        for start in sorted(s for s in starts if entry["start"] <= s < end):
            piece = {k: v for k, v in entry.items() if k not in ("start", "length")}
            if "offset" in piece:
                piece["offset"] += start - entry["start"]
            yield start, piece


def entry_behind(entry):
    """What would follow an entry if it went on in the same way."""
    more = {"start": entry["start"] + entry["length"]}
    if "offset" in entry:
        more["offset"] = entry["offset"] + entry["length"]
    return {**entry, **more}


def shared(ours, theirs):
    """What `ours` says of the fields that `theirs` has, at every depth."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {key: shared(ours[key], theirs[key]) for key in theirs if key in ours}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [shared(a, b) for a, b in zip(ours, theirs)]
    return ours


class Case(unittest.TestCase):
    """A test in a directory of its own."""

    maxDiff = None

    def setUp(self):
        self.start = os.getcwd()
        self.dir = tempfile.mkdtemp(prefix="platter-interop-")
        os.chdir(self.dir)

    def tearDown(self):
        os.chdir(self.start)
        shutil.rmtree(self.dir)

    # ---- we read what is there ---------------------------------------------------------------

    def check_digest(self, image, fmt, raw):
        done = platter("digest", "--algorithm=sha256", "-f", fmt, image)
        self.assertEqual(done.stdout.split()[0], sha256(raw), f"digest of {image}")

    def check_map(self, image, fmt, *options):
        """The same entries as the peer's, with one deviation: where the file has a hole below what
        the tables call data, whoever looks there says "data" and "zero" both. We always look, the
        peer only in some images; and what the host calls a hole changes with what it holds in its
        cache. Place and layer are the same even so."""
        ours = json.loads(platter("map", "--output=json", "-f", fmt, *options, image).stdout)
        theirs = json.loads(qemu_img("map", "--output=json", "-f", fmt, *options, image).stdout)
        if ours == theirs:
            return
        starts = {entry["start"] for entry in ours + theirs}
        for (start, mine), (_, peers) in zip(pieces(ours, starts), pieces(theirs, starts),
                                             strict=True):
            if mine["data"] and peers["data"]:
                mine = {**mine, "zero": peers["zero"]}
            self.assertEqual(mine, peers, f"map of {image} at {start}: {ours} {theirs}")
        for one, next_one in zip(ours, ours[1:]):
            follows = {**entry_behind(one), "length": next_one["length"]}
            self.assertNotEqual(follows, next_one, f"map of {image}: one entry in two")

    def check_info(self, image, fmt):
        """The same in all fields that the peer has. The space a file takes is asked before and
        after, for the file system may still be at work on it."""
        before = json.loads(qemu_img("info", "--output=json", "-f", fmt, image).stdout)
        ours = json.loads(platter("info", "--output=json", "-f", fmt, image).stdout)
        if shared(ours, before) == before:
            return
        theirs = json.loads(qemu_img("info", "--output=json", "-f", fmt, image).stdout)
        if ours["actual-size"] == before["actual-size"]:
            theirs["actual-size"] = before["actual-size"]
        self.assertEqual(shared(ours, theirs), theirs, f"info of {image}")

    def check_read(self, image, fmt, raw=None):
        """Everything we tell of an image agrees with the peer, and with `raw` where it is given."""
        if raw is None:
            raw = f"{image}.peer.raw"
            qemu_img("convert", "-f", fmt, "-O", "raw", image, raw)
        else:
            qemu_img("compare", "-f", fmt, "-F", "raw", image, raw)
        self.check_digest(image, fmt, raw)
        self.check_map(image, fmt)
        self.check_info(image, fmt)
        platter("compare", "-f", fmt, "-F", "raw", image, raw)
        platter("convert", "-f", fmt, "-O", "raw", image, f"{image}.ours.raw")
        self.assertEqual(sha256(f"{image}.ours.raw"), sha256(raw), f"convert of {image}")
        os.unlink(f"{image}.ours.raw")

    # ---- they read what we wrote ---------------------------------------------------------------

    def check_written(self, image, fmt, raw):
        """The peer finds no fault with an image of ours, and the right content in it."""
        if fmt != "raw":
            qemu_img("check", "-f", fmt, image)
        qemu_img("compare", "-f", fmt, "-F", "raw", image, raw)
        self.check_map(image, fmt)
        self.check_info(image, fmt)

    # ---- we write in place ----------------------------------------------------------------------

    def poke(self, image, fmt, shadow, seed, count=24, most=200 * KIB):
        """Random writes, zeros and discards by us, the same into the raw file `shadow`; what a
        discard leaves behind is for the image to say, but it is the old bytes or zeros."""
        rng = random.Random(seed)
        size = os.path.getsize(shadow)
        pattern = "pattern.bin"
        with open(pattern, "wb") as f:
            f.write(rng.randbytes(512 * KIB))
        with open(pattern, "rb") as f:
            noise = f.read()
        lines, dropped = [], set()
        with open(shadow, "r+b") as f:
            for off, length in spread(size, seed + 1, count, most=most):
                verb = rng.choice(["write", "write", "write", "zero", "unmap", "discard", "flush"])
                line = f"{verb} {off} {length}"
                sectors = range(off // 512, (off + length) // 512)
                f.seek(off)
                if verb == "flush":
                    line = "flush"
                elif verb == "discard":
                    dropped.update(sectors)
                else:
                    start = rng.randrange(len(noise) - length)
                    line += f" {start}" if verb == "write" else ""
                    f.write(noise[start:start + length] if verb == "write" else bytes(length))
                    dropped.difference_update(sectors)
                lines.append(line)
        run(POKE, image, fmt, pattern, input="\n".join(lines) + "\n")
        os.unlink(pattern)
        self.settle_discards(image, fmt, shadow, dropped)

    def settle_discards(self, image, fmt, shadow, dropped):
        """Takes over what discarded sectors became, if it is what they may be."""
        if not dropped:
            return
        qemu_img("convert", "-f", fmt, "-O", "raw", image, "settled.raw")
        with open(shadow, "r+b") as f, open("settled.raw", "rb") as now:
            for sector in sorted(dropped):
                f.seek(sector * 512)
                now.seek(sector * 512)
                is_now, was = now.read(512), f.read(512)
                self.assertTrue(is_now == was or not any(is_now),
                                f"{image}: neither old bytes nor zeros in sector {sector}")
                f.seek(sector * 512)
                f.write(is_now)
        os.unlink("settled.raw")


def add_case(cls, name, body, *args):
    """Makes body(self, *args) the test `name` of a class."""
    method = "test_" + "".join(c if c.isalnum() else "_" for c in name)
    assert not hasattr(cls, method), method
    setattr(cls, method, lambda self: body(self, *args))


def main():
    unittest.main(verbosity=1)
