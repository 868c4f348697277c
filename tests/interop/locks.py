# SPDX-License-Identifier: MIT
"""A running program and ours see each other through the locks on the image."""
import os
import shutil
import subprocess

from machine import Machine, Refused, start_fails
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


# What writes to an image in place or puts another in its place, and what only reads it.
WRITING = {
    "any": ["convert -f FMT -O FMT other IMAGE", "convert -n -f FMT -O FMT other IMAGE",
            "create -q -f FMT IMAGE 1M", "dd -f FMT -O FMT bs=1M if=other of=IMAGE",
            "resize -f FMT IMAGE +1M", "bench -w -c 1 -f FMT IMAGE"],
    "qcow2": ["snapshot -c new IMAGE", "snapshot -a old IMAGE", "snapshot -d old IMAGE",
              "snapshot create IMAGE new", "snapshot apply IMAGE old", "snapshot delete IMAGE old",
              "snapshot state --import=other IMAGE new", "bitmap --add IMAGE new",
              "bitmap --remove IMAGE b", "amend -o lazy_refcounts=on IMAGE",
              "rebase -u -b other -F qcow2 IMAGE", "rebase -b other -F qcow2 IMAGE",
              "check -r all IMAGE", "check -r leaks IMAGE", "compact IMAGE"],
    "vmdk": ["check -r all IMAGE"], "raw": []}
READING = {
    "any": ["convert -f FMT -O raw IMAGE new.raw", "info -f FMT IMAGE", "map -f FMT IMAGE",
            "digest -f FMT IMAGE", "measure -f FMT -O qcow2 IMAGE", "bench -c 1 -f FMT IMAGE",
            "dd -f FMT -O raw bs=1M if=IMAGE of=new.raw"],
    "qcow2": ["snapshot -l IMAGE", "snapshot diff IMAGE old", "snapshot read IMAGE old new.raw",
              "bitmap list IMAGE", "check IMAGE"],
    "vmdk": ["check IMAGE"], "raw": []}


def commands(lists, fmt):
    for line in lists["any"] + lists[fmt]:
        yield [word.replace("IMAGE", "image").replace("FMT", fmt) for word in line.split()]


def machine_has_it(self, fmt):
    """A paused machine with the disk attached: nothing is written, and who has it is said."""
    for name in ("image", "other"):
        qemu_img("create", "-q", "-f", fmt, name, 2 * MIB)
    qemu_io("image", fmt, "write -P 9 1M 64k")
    if fmt == "qcow2":
        qemu_img("snapshot", "-c", "old", "image")
        qemu_img("bitmap", "--add", "image", "b")

    def refused(machine, lists):
        for argv in commands(lists, fmt):
            self.assertIn(f"image: is in use by qemu-system-x86 (process {machine.pid}) (",
                          platter(*argv, code=1).stderr, argv)

    with Machine(f"file=image,format={fmt}", paused=True) as machine:
        before = sha256("image")
        refused(machine, WRITING)
        refused(machine, READING)
        platter("compare", "-f", fmt, "-F", fmt, "image", "other", code=2)
        self.assertFalse(os.path.exists("new.raw"))
        for argv in commands(READING, fmt):
            platter(argv[0], "-U", *argv[1:])
        self.assertEqual(sha256("image"), before)
        machine.io("write -P 4 0 64k")

    with Machine(f"file=image,format={fmt},readonly=on,if=none", paused=True) as machine:
        for argv in commands(READING, fmt):
            platter(*argv)
        if fmt != "raw":
            refused(machine, WRITING)
    shutil.copy("image", "saved")
    for argv in commands(WRITING, fmt):
        platter(*argv)
        shutil.copy("saved", "image")


def attach(machine, fmt):
    """A disk for a machine that runs: whichever of the two steps is refused leaves nothing."""
    machine.do("blockdev-add", driver=fmt, node_name="late",
               file={"driver": "file", "filename": "image"})
    try:
        machine.do("device_add", driver="virtio-blk-pci", drive="late")
    except Refused:
        machine.do("blockdev-del", node_name="late")
        raise


def we_have_it(self, fmt):
    """No machine starts with what we write to, or attaches it."""
    qemu_img("create", "-q", "-f", fmt, "image", 2 * MIB)
    with us_writing("image", fmt) as holder:
        holder.say("zero 0 4096", "ok")
        before = sha256("image")
        self.assertIn("lock", start_fails(f"file=image,format={fmt}"))
        with Machine(paused=True) as machine:
            with self.assertRaisesRegex(Refused, "lock"):
                attach(machine, fmt)
            self.assertEqual(sha256("image"), before)
            holder.program.stdin.close()
            holder.program.wait(30)
            attach(machine, fmt)


class Locks(Case):
    def test_machine_over_backing_file(self):
        """Below a machine's disk nothing is written either; it may be read."""
        qemu_img("create", "-q", "-f", "qcow2", "base", 2 * MIB)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
        with Machine("top", paused=True) as machine:
            for argv in (["snapshot", "-c", "new", "base"], ["resize", "base", "+1M"],
                         ["bench", "-w", "-c", "1", "base"], ["commit", "top"]):
                self.assertIn(f"in use by qemu-system-x86 (process {machine.pid}) (",
                              platter(*argv, code=1).stderr, argv)
            platter("digest", "base")
            platter("digest", "-U", "top")
            platter("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "second")
        platter("commit", "top")

    def test_machine_with_data_file(self):
        qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=data", "image", 2 * MIB)
        with Machine("image", paused=True) as machine:
            who = f"data: is in use by qemu-system-x86 (process {machine.pid}) ("
            for argv in (["bench", "-w", "-c", "1", "-f", "raw", "data"],
                         ["digest", "-f", "raw", "data"]):
                self.assertIn(who, platter(*argv, code=1).stderr, argv)

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
    add_case(Locks, f"machine has {image_fmt}", machine_has_it, image_fmt)
    add_case(Locks, f"we have {image_fmt}", we_have_it, image_fmt)

main()
