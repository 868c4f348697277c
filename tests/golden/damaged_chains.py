# SPDX-License-Identifier: MIT
"""Chains whose links are wrong, and names inside images that lead where they must not."""
import os
import random
import subprocess

import craft
from harm import Harm
from peers import MIB, add_case, main, platter, qemu_img, text_like

SIZE = MIB


class Chain(Harm):
    def setUp(self):
        super().setUp()
        os.mkdir("images")
        rng = random.Random(9)
        with open("base.raw", "wb") as f:
            f.write(text_like(rng, SIZE))
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "base.raw", "images/base.qcow2")
        with open("images/base.qcow2", "rb") as f:
            self.base = f.read()

    def overlay(self, name, fmt="qcow2", top="images/top.qcow2", extra=b""):
        """An overlay with nothing in it over any name whatever."""
        extensions = craft.extension(0xE2792ACA, fmt.encode()) if fmt else b""
        with open(top, "wb") as f:
            f.write(craft.Qcow2(SIZE, extensions=extensions + extra,
                                backing=os.fsencode(name)).image())
        return top

    def refused(self, top, *words):
        self.expect_error(top, "qcow2", "base.raw", *words)
        # What only describes the image itself does not follow the name.
        platter("info", top)
        platter("info", "--output=json", top)


class Backing(Chain):
    def test_good(self):
        self.expect_good(self.overlay("base.qcow2"), "qcow2", "base.raw")

    def test_missing(self):
        self.refused(self.overlay("gone.qcow2"), "gone.qcow2", "No such file|cannot be found")

    def test_empty_file(self):
        open("images/empty", "wb").close()
        self.refused(self.overlay("empty"), "empty")

    def test_loop_of_one(self):
        self.refused(self.overlay("top.qcow2"), "loop|already")

    def test_loop_of_two(self):
        self.overlay("top.qcow2", top="images/middle.qcow2")
        self.refused(self.overlay("middle.qcow2"), "loop|already")

    def test_loop_by_a_link(self):
        os.symlink("top.qcow2", "images/link")
        self.refused(self.overlay("link"), "loop|already")

    def test_longer_than_anybody_needs(self):
        self.overlay("base.qcow2", top="images/0")
        for number in range(1, 210):
            self.overlay(str(number - 1), top=f"images/{number}")
        done = platter("convert", "-O", "raw", "images/209", "new.raw", code=1)
        self.assertRegex(done.stderr, "images/.*longer than 200")
        self.assertFalse(os.path.exists("new.raw"))
        self.expect_good("images/150", "qcow2", "base.raw")

    def test_other_format_than_it_says(self):
        self.refused(self.overlay("base.qcow2", fmt="vmdk"), "base.qcow2", "VMDK|vmdk")

    def test_format_that_nobody_knows(self):
        self.refused(self.overlay("base.qcow2", fmt="quux"), "quux")

    def test_no_format(self):
        """It is not guessed: a guest could have written it."""
        self.refused(self.overlay("base.qcow2", fmt=None), "format")

    def test_raw_base_that_looks_like_qcow2(self):
        """Named as raw it is raw, whatever it looks like."""
        top = self.overlay("base.qcow2", fmt="raw")
        platter("convert", "-O", "raw", top, "new.raw")
        with open("new.raw", "rb") as f:
            got = f.read()
        self.assertEqual(got, self.base.ljust(SIZE, b"\0")[:SIZE])

    def test_shorter_base(self):
        """What lies behind the end of the base is zeros."""
        qemu_img("create", "-q", "-f", "qcow2", "images/short.qcow2", 512)
        with open("zeros.raw", "wb") as f:
            f.truncate(SIZE)
        self.expect_good(self.overlay("short.qcow2"), "qcow2", "zeros.raw")

    def test_longer_base(self):
        rng = random.Random(9)
        with open("images/long.raw", "wb") as f:
            f.write(text_like(rng, SIZE) + b"more")
        self.expect_good(self.overlay("long.raw", fmt="raw"), "qcow2", "base.raw")

    def test_base_damaged(self):
        with open("images/base.qcow2", "r+b") as f:
            f.truncate(len(self.base) // 2)
        top = self.overlay("base.qcow2")
        done = platter("convert", "-O", "raw", top, "new.raw", code=1)
        self.assertIn("images/base.qcow2", done.stderr)
        self.assertFalse(os.path.exists("new.raw"))
        self.salvage(top, "qcow2", "base.raw")

    def test_base_replaced_by_a_folder(self):
        os.mkdir("images/folder")
        self.refused(self.overlay("folder"), "folder")

    def test_salvage_does_not_do_without_the_base(self):
        """A base that cannot be found is no hole of the disk."""
        top = self.overlay("gone.qcow2")
        platter("convert", "--salvage", "-O", "raw", top, "new.raw", code=1)
        self.assertFalse(os.path.exists("new.raw"))


NAMES = ['json:{"driver":"file","filename":"base.qcow2"}', "nbd:localhost:10809",
         "nbd://localhost/x", "http://localhost/x", "file:base.qcow2", "fd:3",
         "host_device:/dev/sda", "/etc/passwd", "../base.raw", "../images/../base.raw",
         "/dev/zero", "/dev/null", "/proc/self/mem", "x\ny", " ", "."]


def bad_backing(self, name):
    self.refused(self.overlay(name, fmt="raw"))


def bad_data_file(self, name):
    with open("images/top.qcow2", "wb") as f:
        f.write(craft.Qcow2(SIZE, incompatible=4, extensions=craft.extension(
            0x44415441, name.encode())).image())
    self.refused("images/top.qcow2")


class Names(Chain):
    def special(self, path, *words):
        for top in (self.overlay(path, fmt="raw"), self.data_file(path)):
            self.refused(top, *words)

    def data_file(self, name):
        with open("images/data.qcow2", "wb") as f:
            f.write(craft.Qcow2(SIZE, incompatible=4, extensions=craft.extension(
                0x44415441, name.encode())).image())
        return "images/data.qcow2"

    def test_fifo(self):
        """Nobody writes to it: whoever opened it would wait for ever."""
        os.mkfifo("images/pipe")
        self.special("pipe", "regular|pipe")

    def test_fifo_behind_a_link(self):
        os.mkfifo("images/pipe")
        os.symlink("pipe", "images/link")
        self.special("link", "regular|pipe|link")

    def test_link_out_of_the_folder(self):
        os.symlink("/etc/passwd", "images/link")
        os.symlink("..", "images/up")
        self.special("link", "folder")
        self.special("up/base.raw", "folder")

    def test_link_to_a_device(self):
        os.symlink("/dev/zero", "images/link")
        self.special("link", "folder|regular")

    def test_device_node_in_the_folder(self):
        os.mknod("images/node", 0o20600, os.makedev(1, 5))
        self.special("node", "regular")

    def test_allowed(self):
        """A folder that the user trusts may be led to."""
        top = self.overlay("../base.raw", fmt="raw")
        self.refused(top, "--allow")
        platter("convert", "--allow", ".", "-O", "raw", top, "new.raw")
        platter("compare", "-f", "raw", "-F", "raw", "new.raw", "base.raw")

    def test_control_characters_do_not_reach_the_terminal(self):
        top = self.overlay("\x1b[2Jevil\x07", fmt="raw")
        for argv in (["convert", "-O", "raw", top, "new.raw"], ["info", top],
                     ["info", "--output=json", top], ["map", top]):
            done = platter(*argv, code={0, 1})
            self.assertNotIn("\x1b", done.stdout + done.stderr)
            self.assertNotIn("\x07", done.stdout + done.stderr)

    def test_source_is_a_fifo(self):
        """It is read front to back: what comes and is no image is an error, and nobody waits for more."""
        os.mkfifo("pipe")
        for argv in (["convert", "-f", "qcow2", "-O", "raw", "pipe", "new.raw"], ["info", "-f", "qcow2", "pipe"]):
            with subprocess.Popen(["sh", "-c", "exec head -c 65536 /dev/zero >pipe"]):
                platter(*argv, code=1)
        self.assertFalse(os.path.exists("new.raw"))

    def test_source_is_a_folder(self):
        platter("convert", "-O", "raw", "images", "new.raw", code=1)
        self.assertFalse(os.path.exists("new.raw"))


for number, bad_name in enumerate(NAMES):
    add_case(Names, f"backing-{number}-{bad_name}", bad_backing, bad_name)
    add_case(Names, f"data-file-{number}-{bad_name}", bad_data_file, bad_name)

main()
