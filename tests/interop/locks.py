# SPDX-License-Identifier: MIT
"""A running program and ours see each other through the locks on the image."""
import os
import subprocess

from peers import MIB, POKE, Case, add_case, main, platter, qemu_img, qemu_io, run, sha256


class Holder:
    """A program that has an image open, until the block ends."""

    def __init__(self, *argv, greeting):
        self.program = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.greeting = greeting

    def __enter__(self):
        self.say(*self.greeting)
        return self

    def say(self, line, answer):
        if line:
            self.program.stdin.write(line + "\n")
            self.program.stdin.flush()
        heard = ""
        while answer not in heard:
            piece = self.program.stdout.readline()
            assert piece, f"the program ended: {heard}"
            heard += piece

    def __exit__(self, *_):
        self.program.stdin.close()
        self.program.stdout.read()
        self.program.stdout.close()
        self.program.wait(30)


def peer_writing(image, fmt):
    return Holder("qemu-io", "-f", fmt, image, greeting=("write -P 1 0 4k", "ops"))


def peer_reading(image, fmt):
    return Holder("qemu-io", "-r", "-f", fmt, image, greeting=("read 0 4k", "ops"))


def us_writing(image, fmt):
    return Holder(POKE, image, fmt, greeting=(None, "open"))


def locks(self, fmt):
    qemu_img("create", "-q", "-f", fmt, "image", 2 * MIB)
    qemu_img("create", "-q", "-f", fmt, "other", 2 * MIB)
    qemu_io("image", fmt, "write -P 9 1M 64k")

    with peer_writing("image", fmt):
        before = sha256("image")
        for argv in (["convert", "-f", fmt, "-O", "raw", "image", "new.raw"],
                     ["convert", "-f", fmt, "-O", fmt, "other", "image"],
                     ["convert", "-n", "-f", fmt, "-O", fmt, "other", "image"],
                     ["create", "-q", "-f", fmt, "image", "1M"],
                     ["map", "-f", fmt, "image"],
                     ["info", "-f", fmt, "image"],
                     ["digest", "-f", fmt, "image"]):
            done = platter(*argv, code=1)
            self.assertIn("image", done.stderr)
        platter("compare", "-f", fmt, "-F", fmt, "image", "other", code=2)
        run(POKE, "image", fmt, code=1, input="")
        self.assertFalse(os.path.exists("new.raw"))
        self.assertEqual(sha256("image"), before)
        for verb in ("info", "map", "digest"):
            platter(verb, "-U", "-f", fmt, "image")
        platter("convert", "-U", "-f", fmt, "-O", "raw", "image", "new.raw")

    # Whoever only reads a raw file lets others write to it; a format with tables cannot.
    beside = 0 if fmt == "raw" else 1
    with peer_reading("image", fmt):
        platter("digest", "-f", fmt, "image")
        run(POKE, "image", fmt, code=beside, input="")

    with us_writing("image", fmt) as holder:
        holder.say("zero 0 4096", "ok")
        run("qemu-io", "-f", fmt, "-c", "write 0 4k", "image", code=1)
        run("qemu-io", "-r", "-f", fmt, "-c", "read 0 4k", "image", code=beside)
        qemu_img("info", "-f", fmt, "image", code=beside)
        qemu_img("info", "-U", "-f", fmt, "image")
        run(POKE, "image", fmt, code=1, input="")
        platter("digest", "-f", fmt, "image", code=1)

    platter("digest", "-f", fmt, "image")
    qemu_io("image", fmt, "write -P 3 0 4k")


class Locks(Case):
    def test_backing_file_in_use(self):
        """A base that somebody writes to is no base; one that is only read is."""
        qemu_img("create", "-q", "-f", "qcow2", "base", 2 * MIB)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
        with peer_writing("base", "qcow2"):
            done = platter("digest", "top", code=1)
            self.assertIn("base", done.stderr)
        with us_writing("top", "qcow2"):
            run("qemu-io", "-f", "qcow2", "-c", "write 0 4k", "base", code=1)
            qemu_io("base", "qcow2", "read 0 4k", options=["-r"])

    def test_data_file_in_use(self):
        qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=data", "image", 2 * MIB)
        with us_writing("image", "qcow2"):
            run("qemu-io", "-f", "raw", "-c", "write 0 4k", "data", code=1)
        with peer_writing("data", "raw"):
            done = platter("digest", "image", code=1)
            self.assertIn("data", done.stderr)


for image_fmt in ("raw", "qcow2", "vmdk"):
    add_case(Locks, image_fmt, locks, image_fmt)

main()
