# SPDX-License-Identifier: MIT
"""raw: ends inside a sector, holes, and a block device."""
import os
import subprocess

from peers import KIB, MIB, Case, main, make_content, platter, qemu_img, run, sha256


class Raw(Case):
    def test_sizes(self):
        for size in (512, 65024, MIB + 512, 3 * MIB):
            make_content("plain.raw", size, size)
            self.check_read("plain.raw", "raw", "plain.raw")

    def test_sparse(self):
        with open("sparse.raw", "wb") as f:
            for at in (0, 300 * KIB, 5 * MIB + 4096):
                f.seek(at)
                f.write(os.urandom(8192))
            f.truncate(64 * MIB)
        self.check_read("sparse.raw", "raw", "sparse.raw")
        platter("convert", "-f", "raw", "-O", "raw", "sparse.raw", "copy.raw")
        self.assertLess(os.stat("copy.raw").st_blocks * 512, 128 * KIB)
        self.check_read("copy.raw", "raw", "sparse.raw")

    def test_ends_inside_a_sector(self):
        """The peer rounds the disk up to a sector; to us it has the bytes that are there, and
        formats that count in sectors get zeros behind them."""
        for size in (1, 511, 513, 65 * KIB + 100):
            with open("short.raw", "wb") as f:
                f.write(os.urandom(size))
            self.check_digest("short.raw", "raw", "short.raw")
            for fmt in ("qcow2", "vmdk"):
                platter("convert", "-f", "raw", "-O", fmt, "short.raw", f"ours.{fmt}")
                qemu_img("compare", "-f", "raw", "-F", fmt, "short.raw", f"ours.{fmt}")
                platter("compare", "-f", "raw", "-F", fmt, "short.raw", f"ours.{fmt}")
            platter("convert", "-f", "raw", "-O", "raw", "short.raw", "copy.raw")
            self.assertEqual(sha256("copy.raw"), sha256("short.raw"))

    def test_empty(self):
        open("empty.raw", "wb").close()
        self.check_digest("empty.raw", "raw", "empty.raw")
        platter("convert", "-f", "raw", "-O", "qcow2", "empty.raw", "ours.qcow2")
        qemu_img("check", "ours.qcow2")

    def test_poke(self):
        make_content("poked.raw", 3 * MIB, 1)
        run("cp", "poked.raw", "shadow.raw")
        self.poke("poked.raw", "raw", "shadow.raw", 1)
        self.check_read("poked.raw", "raw", "shadow.raw")


class Device(Case):
    """A loop device where this machine lets us have one; where it does not, the machine is the
    reason that the test fails, for then nothing was proved."""

    def setUp(self):
        super().setUp()
        with open("disk", "wb") as f:
            f.truncate(8 * MIB)
        self.device = subprocess.run(["losetup", "-f", "--show", "disk"], check=True, text=True,
                                     capture_output=True).stdout.strip()

    def tearDown(self):
        run("losetup", "-d", self.device)
        super().tearDown()

    def test_read_and_write(self):
        make_content("content.raw", 8 * MIB, 2)
        run("dd", "if=content.raw", f"of={self.device}", "bs=1M", "conv=fsync")
        self.check_digest(self.device, "raw", "content.raw")
        platter("convert", "-f", "raw", "-O", "qcow2", self.device, "ours.qcow2")
        self.check_written("ours.qcow2", "qcow2", "content.raw")
        run("dd", "if=/dev/urandom", f"of={self.device}", "bs=1M", "count=8", "conv=fsync")
        platter("convert", "-n", "-O", "raw", "ours.qcow2", self.device)
        self.assertEqual(sha256(self.device), sha256("content.raw"))

    def test_new_image_on_a_device(self):
        """What stood on the device before must not shine through the holes of the copy."""
        make_content("content.raw", 8 * MIB, 3)
        run("dd", "if=/dev/urandom", f"of={self.device}", "bs=1M", "count=8", "conv=fsync")
        platter("convert", "-f", "raw", "-O", "raw", "content.raw", self.device)
        self.assertEqual(sha256(self.device), sha256("content.raw"))

    def test_no_new_vmdk_on_a_device(self):
        """It could not grow there, and its footer would not be at the end."""
        make_content("content.raw", MIB, 4)
        run("dd", "if=/dev/urandom", f"of={self.device}", "bs=1M", "count=8", "conv=fsync")
        before = sha256(self.device)
        for kind in ("monolithicSparse", "streamOptimized"):
            option = f"subformat={kind}"
            for call in (["convert", "-f", "raw", "-O", "vmdk", "-o", option, "content.raw",
                          self.device], ["create", "-f", "vmdk", "-o", option, self.device, MIB]):
                self.assertIn("block device", platter(*call, code=1).stderr)
        self.assertEqual(sha256(self.device), before)

    def test_too_small(self):
        make_content("large.raw", 9 * MIB, 3)
        before = sha256(self.device)
        done = platter("convert", "-n", "-f", "raw", "-O", "raw", "large.raw", self.device, code=1)
        self.assertIn(self.device, done.stderr)
        self.assertEqual(sha256(self.device), before)


main()
