# SPDX-License-Identifier: MIT
"""Live migration into images in a real Ceph, and out of them."""
import os
import signal
import stat
import time

from migrate import NOT_EXECUTED, Background, MigrateCase, Target, migrate, status, wait_for_state
from peers import main, platter, qemu_img, qemu_io, run, sha256
from pool import POOL, export, names, rbd, remove

TARGET = f"rbd:{POOL}/vm"


class Ceph(MigrateCase):
    def setUp(self):
        super().setUp()
        os.mkdir("run", 0o700)
        self.runtime = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = os.path.abspath("run")

    def tearDown(self):
        for name in names():
            remove(name)
        if self.runtime:
            os.environ["XDG_RUNTIME_DIR"] = self.runtime
        else:
            del os.environ["XDG_RUNTIME_DIR"]
        super().tearDown()

    def check_image(self, raw):
        """The image stands alone."""
        self.assertEqual(names(), ["vm"])
        self.assertEqual(sha256(export("vm", "exported")), sha256(raw))
        self.assertEqual(os.listdir("run"), [])

    def whole_way(self, *source):
        migrate("prepare", *source, TARGET)
        run("cp", "disk.raw", "shadow.raw")
        with Target(TARGET) as s:
            self.assertEqual(self.read_all(s.uri), [])
            self.guest(s.uri, "shadow.raw", 1)
            migrate("commit", TARGET, code=NOT_EXECUTED)
            migrate("execute", TARGET)
            self.assertEqual(status(TARGET)["owner"], s.server())
            self.guest(s.uri, "shadow.raw", 2, 10)
            migrate("commit", TARGET)
            self.guest(s.uri, "shadow.raw", 3, 10)
        self.check_image("shadow.raw")

    def test_into(self):
        self.whole_way("-f", "raw", "disk.raw")

    def test_within(self):
        """From a qcow2 in an image to an image."""
        platter("convert", "-f", "raw", "-O", "qcow2", "disk.raw", f"rbd:{POOL}/source")
        migrate("prepare", f"rbd:{POOL}/source", TARGET)
        with Target(TARGET) as s:
            self.check_same(s.uri)
        migrate("execute", TARGET)
        migrate("commit", TARGET)
        remove("source")
        self.check_image("disk.raw")

    def test_out_of_a_snapshot(self):
        rbd("import", "disk.raw", f"{POOL}/source")
        rbd("snap", "create", f"{POOL}/source@then")
        qemu_io(f"rbd:{POOL}/source", "raw", "write -P 4 0 1M")
        self.prepare("-f", "raw", f"rbd:{POOL}/source@then")
        with Target("--execute", "vm.qcow2") as s:
            self.check_same(s.uri)
            wait_for_state("executed")
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")

    def test_snapshots(self):
        """Those of a qcow2 are snapshots of the image."""
        self.make("a.qcow2")
        platter("snapshot", "-c", "first", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 5 0 3M")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "right.raw")
        migrate("prepare", "--snapshots", "a.qcow2", TARGET)
        migrate("execute", TARGET)
        migrate("commit", TARGET)
        self.assertEqual(sha256(export("vm@first", "first.raw")), sha256("disk.raw"))
        self.check_image("right.raw")

    def test_killed(self):
        migrate("prepare", "-f", "raw", "disk.raw", TARGET)
        run("cp", "disk.raw", "shadow.raw")
        with Target("--execute", "--rate", "1M", TARGET, code=1) as s:
            self.guest(s.uri, "shadow.raw", 5)
            qemu_io(s.uri, "raw", "flush")
            os.kill(s.server(), signal.SIGKILL)
            s.process.wait(30)
        until = time.monotonic() + 60  # Ceph takes a client for alive for 30 s
        while migrate("execute", TARGET, code={0, 1}).returncode:
            self.assertLess(time.monotonic(), until)
        with Target(TARGET) as s:
            self.check_same(s.uri, "shadow.raw")
        migrate("commit", TARGET)
        self.check_image("shadow.raw")

    def test_owners(self):
        """The socket is in a folder of this user's."""
        migrate("prepare", "-f", "raw", "disk.raw", TARGET)
        with Background("execute", "--rate", "400K", TARGET) as copy:
            wait_for_state("executing", TARGET)
            with Target(TARGET) as s:
                sockets = os.listdir("run")
                sockets = [name for name in sockets if name.endswith(".sock")]
                self.assertEqual(len(sockets), 1)
                self.assertEqual(stat.S_IMODE(os.stat(f"run/{sockets[0]}").st_mode), 0o600)
                wait_for_state("executing", TARGET)
                self.assertEqual(status(TARGET)["owner"], s.server())
                self.assertIn("already", migrate("execute", TARGET, code=1).stderr)
                migrate("abort", TARGET, code=1)
                self.check_same(s.uri)
                copy.end()
        migrate("commit", TARGET)
        self.check_image("disk.raw")

    def test_abort(self):
        migrate("prepare", "-f", "raw", "disk.raw", TARGET)
        migrate("execute", TARGET)
        migrate("abort", TARGET)
        self.assertEqual(names(), [])


if __name__ == "__main__":
    main()
