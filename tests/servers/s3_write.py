# SPDX-License-Identifier: MIT
"""What is written to S3 is there when it is complete, and only then; else there is nothing of it."""
import os
import signal
import subprocess
import time

import gateway
from peers import MIB, PLATTER, Case, main, make_content, platter, qemu_img, sha256

BUCKET = "writes"
PART = 5 * MIB # the least that S3 takes
PARTS = f"part_size={PART}"


class Writes(Case):

    @classmethod
    def setUpClass(cls):
        gateway.put(f"/{BUCKET}")

    def noise(self, size, name="disk.raw"):
        with open(name, "wb") as f:
            f.write(os.urandom(size))
        return name

    def got(self, key, name="got"):
        """What is in the bucket, as a file; gateway.get() takes no part in how it came there."""
        with open(name, "wb") as f:
            f.write(gateway.get(f"/{BUCKET}/{key}"))
        return name

    def nothing_left(self, key):
        self.assertNotIn(key, gateway.keys(BUCKET))
        self.assertEqual(gateway.uploads(BUCKET), [])

    def test_sizes(self):
        """Less than a part, whole parts, and a bit more of each."""
        for size in (0, 1, PART - 1, PART, PART + 1, 3 * PART, 4 * PART + 12345):
            self.noise(size)
            place = f"s3://{BUCKET}/size?{PARTS}"
            platter("convert", "-f", "raw", "-O", "raw", "disk.raw", place)
            self.assertEqual(sha256(self.got("size")), sha256("disk.raw"), f"{size} bytes")
            self.assertEqual(gateway.uploads(BUCKET), [])

    def test_formats_in_order(self):
        make_content("disk.raw", 14 * MIB, 1)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2")
        platter("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.qcow2",
                f"s3://{BUCKET}/stream.vmdk?{PARTS}")
        qemu_img("compare", "-f", "vmdk", "-F", "raw", self.got("stream.vmdk"), "disk.raw")
        platter("compare", "-F", "raw", f"s3://{BUCKET}/stream.vmdk", "disk.raw")
        platter("convert", "-O", "raw", "disk.qcow2", f"s3://{BUCKET}/disk.raw?{PARTS}")
        self.assertEqual(sha256(self.got("disk.raw")), sha256("disk.raw"))
        for name in ("x.vma", "x.vma.zst"):
            place = f"s3://{BUCKET}/{name}?{PARTS}"
            platter("archive", "create", "-q", place, "-d", "scsi0=disk.qcow2", "--embed-digest")
            platter("verify", "-q", place)
            platter("verify", "-q", self.got(name))
            platter("compare", "-F", "raw", f"s3://{BUCKET}/{name}", "disk.raw")

    def test_qcow2(self):
        """Its header comes last, in the first part: qemu-img finds no fault with what is there."""
        make_content("disk.raw", 14 * MIB, 4)
        for options in ([], ["-c"], ["-c", "-o", "compression_type=zstd"], ["-o", "compat=0.10"],
                        ["-c", "-o", "cluster_size=1k,refcount_bits=8"], # many refcount blocks
                        ["-c", "-o", "cluster_size=4k,refcount_bits=1"], # a record a cluster
                        ["-o", "cluster_size=2M"]):
            platter("convert", "-f", "raw", "-O", "qcow2", *options, "disk.raw",
                    f"s3://{BUCKET}/disk.qcow2?{PARTS}")
            qemu_img("check", "-f", "qcow2", self.got("disk.qcow2"))
            qemu_img("compare", "-f", "qcow2", "-F", "raw", "got", "disk.raw")
            platter("check", "-q", f"s3://{BUCKET}/disk.qcow2")
        platter("create", "-q", "-f", "qcow2", f"s3://{BUCKET}/new.qcow2", "3G")
        qemu_img("check", "-f", "qcow2", self.got("new.qcow2"))
        for options, word in ((["-o", "preallocation=full"], "preallocated"),
                              (["-o", "extended_l2=on"], "extended L2"),
                              (["-o", "data_file=x"], "data file"),
                              (["-B", "got", "-F", "qcow2"], "backing file")):
            done = platter("convert", "-f", "raw", "-O", "qcow2", *options, "disk.raw",
                           f"s3://{BUCKET}/no", code=1)
            self.assertIn(word, done.stderr)
            self.nothing_left("no")

    def test_digests_beside(self):
        make_content("disk.raw", MIB, 2)
        place = f"s3://{BUCKET}/beside.vma"
        platter("archive", "create", "-q", place, "-d", "scsi0=disk.raw", "-f", "raw", "--digest")
        self.assertIn("digests", platter("verify", place).stdout)
        done = platter("archive", "create", place, "-d", "scsi0=disk.raw", "-f", "raw", code=1)
        self.assertIn("digests of the new archive", done.stderr)

    def test_out_of_order(self):
        """What has to be written here and there is refused before anything is sent."""
        self.noise(MIB)
        for options in (["-O", "vmdk"], ["-O", "qcow"], ["-O", "vmdk", "-o",
                                                         "subformat=monolithicFlat"]):
            done = platter("convert", "-f", "raw", *options, "disk.raw", f"s3://{BUCKET}/no",
                           code=1)
            self.assertIn("cannot be written front to back", done.stderr)
            self.nothing_left("no")
        done = platter("resize", "-f", "raw", f"s3://{BUCKET}/no", "+1M", code=1)
        self.assertIn("replaced as a whole", done.stderr)

    def test_replaces(self):
        """An object that is there is replaced by all of another one, unless it is not to be."""
        gateway.put(f"/{BUCKET}/old.vma", b"old")
        self.noise(2 * PART)
        argv = ["archive", "create", "-q", f"s3://{BUCKET}/old.vma?{PARTS}", "-d",
                "scsi0=disk.raw", "-f", "raw"]
        done = platter(*argv, "--exclusive", code=1)
        self.assertIn("exists already", done.stderr)
        self.assertEqual(gateway.get(f"/{BUCKET}/old.vma"), b"old")
        platter(*argv)
        platter("compare", "-F", "raw", f"s3://{BUCKET}/old.vma", "disk.raw")
        gateway.delete(f"/{BUCKET}/old.vma")
        platter(*argv, "--exclusive")
        self.assertEqual(gateway.uploads(BUCKET), [])

    def test_onto_itself(self):
        self.noise(MIB)
        gateway.put_file(f"/{BUCKET}/self", "disk.raw")
        done = platter("convert", "-f", "raw", "-O", "raw", f"s3://{BUCKET}/self",
                       f"s3://{BUCKET}/self", code=1)
        self.assertIn("is the source itself", done.stderr)

    def test_refused(self):
        self.noise(2 * PART)
        argv = ["convert", "-f", "raw", "-O", "raw", "disk.raw"]
        done = platter(*argv, "s3://no-such-bucket/x", code=1)
        self.assertIn("NoSuchBucket", done.stderr)
        done = platter(*argv, f"s3://{BUCKET}/x", code=1,
                       env=gateway.without(AWS_SECRET_ACCESS_KEY=gateway.SECRET_KEY[::-1]))
        self.assertIn("SignatureDoesNotMatch", done.stderr)
        gateway.put(f"/{BUCKET}-public", x_amz_acl="public-read")
        done = platter(*argv, f"s3://{BUCKET}-public/x?anonymous=on", code=1)
        self.assertIn("AccessDenied", done.stderr)

    def test_source_fails(self):
        """A source that ends too early: the object that was there stays."""
        make_content("disk.raw", 40 * MIB, 3)
        platter("convert", "-f", "raw", "-O", "qcow2", "-o", "preallocation=full", "disk.raw",
                "disk.qcow2")
        os.truncate("disk.qcow2", 30 * MIB)
        gateway.put(f"/{BUCKET}/failing", b"old")
        platter("convert", "-O", "raw", "disk.qcow2", f"s3://{BUCKET}/failing?{PARTS}", code=1)
        self.assertEqual(gateway.get(f"/{BUCKET}/failing"), b"old")
        self.assertEqual(gateway.uploads(BUCKET), [])

    def killed(self, key, *signals):
        """A copy that gets the signals when its first parts are on the server."""
        copy = subprocess.Popen([PLATTER, "convert", "-f", "raw", "-O", "raw", "-r", "8M",
                                 "disk.raw", f"s3://{BUCKET}/{key}?{PARTS}"],
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        end = time.monotonic() + 60
        while not gateway.parts(BUCKET, key):
            self.assertIsNone(copy.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        for number in signals:
            copy.send_signal(number)
        copy.communicate(timeout=60)
        return copy.returncode

    def test_killed(self):
        self.noise(60 * MIB)
        self.assertNotEqual(self.killed("term", signal.SIGTERM), 0)
        self.nothing_left("term")
        self.assertNotEqual(self.killed("interrupted", signal.SIGINT), 0)
        self.nothing_left("interrupted")
        self.assertNotEqual(self.killed("twice", signal.SIGINT, signal.SIGINT), 0)
        self.nothing_left("twice")
        # What nobody can do anything about leaves parts that are no object, and can be dropped.
        self.assertEqual(self.killed("killed", signal.SIGKILL), -signal.SIGKILL)
        self.assertNotIn("killed", gateway.keys(BUCKET))
        gateway.abort(BUCKET, "killed")
        self.nothing_left("killed")


main()
