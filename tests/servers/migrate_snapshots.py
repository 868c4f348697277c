# SPDX-License-Identifier: MIT
"""Snapshots that come along into an image of a real Ceph, and out of one."""
import json
import os
import sys

import pool  # first: it takes the name of this program

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
# pylint: disable=wrong-import-position
from migrate import MigrateCase, Target, migrate, status
from peers import KIB, MIB, main, make_content, platter, qemu_img, qemu_io, run, sha256
from pool import POOL, export, names, rbd, remove

TARGET = f"rbd:{POOL}/vm"
STATES = ("one", "two", "three")


class Snapshots(MigrateCase):
    def setUp(self):
        super().setUp()
        os.mkdir("run", 0o700)
        self.runtime = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = os.path.abspath("run")
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
        qemu_io("a.qcow2", "qcow2", "write -P 1 0 20M", "write -P 2 30M 1M")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        qemu_img("resize", "-q", "a.qcow2", "72M")
        qemu_io("a.qcow2", "qcow2", "write -P 3 1M 64k", "write -z -u 4M 3M", "write -P 8 70M 1M")
        qemu_img("snapshot", "-c", "two", "a.qcow2")
        qemu_img("resize", "-q", "--shrink", "a.qcow2", "64M")
        qemu_img("snapshot", "-c", "three", "a.qcow2")

    def tearDown(self):
        for name in names():
            for snapshot in json.loads(rbd("snap", "ls", "--format=json", f"{POOL}/{name}").stdout):
                if snapshot["protected"] == "true":
                    rbd("snap", "unprotect", f"{POOL}/{name}@{snapshot['name']}")
            remove(name)
        if self.runtime:
            os.environ["XDG_RUNTIME_DIR"] = self.runtime
        else:
            del os.environ["XDG_RUNTIME_DIR"]
        super().tearDown()

    def change(self):
        """Of the newest snapshot: a part of an object, data where there was none, and zeros over data."""
        qemu_io("a.qcow2", "qcow2", "write -P 4 30M 4k", "write -P 5 40M 64k", "write -z -u 8M 5M", "write -z -u 16M 64k")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "right.raw")

    def check_states(self):
        for state in STATES:
            platter("convert", "-O", "raw", "-l", state, "a.qcow2", "state.raw")
            self.assertEqual(sha256(export(f"vm@{state}", "ceph.raw")), sha256("state.raw"), state)

    def test_into(self):
        self.change()
        migrate("prepare", "--snapshots", "a.qcow2", TARGET)
        self.assertEqual(status(TARGET)["left"], 128 * KIB)
        self.check_states()
        run("cp", "right.raw", "shadow.raw")
        with Target(TARGET) as s:
            self.assertEqual(self.read_all(s.uri, "right.raw", MIB), [])
            self.guest(s.uri, "shadow.raw", 1)
            migrate("execute", TARGET)
            self.assertEqual((status(TARGET)["state"], status(TARGET)["left"]), ("executed", 0))
            self.check_same(s.uri, "shadow.raw")
            migrate("commit", TARGET)
            self.guest(s.uri, "shadow.raw", 2, 10)
        self.assertEqual(names(), ["vm"])
        self.assertEqual(sha256(export("vm", "exported")), sha256("shadow.raw"))
        self.check_states()

    def test_untouched(self):
        """No guest, no difference; and a target that is larger."""
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "right.raw")
        os.truncate("right.raw", 80 * MIB)
        migrate("prepare", "--snapshots", "--size", "80M", "a.qcow2", TARGET)
        self.assertEqual(status(TARGET)["left"], 0)
        migrate("execute", TARGET)
        migrate("commit", TARGET)
        self.assertEqual(sha256(export("vm", "exported")), sha256("right.raw"))
        self.check_states()

    def test_out_of(self):
        """Those of an image are those of a qcow2."""
        rbd("import", "disk.raw", f"{POOL}/source")
        rbd("snap", "create", f"{POOL}/source@first")
        qemu_io(f"rbd:{POOL}/source", "raw", "write -P 4 0 1M")
        export("source", "second.raw")
        rbd("snap", "create", f"{POOL}/source@second")
        qemu_io(f"rbd:{POOL}/source", "raw", "write -P 5 5M 64k")
        export("source", "right.raw")
        self.prepare("--snapshots", "-f", "raw", f"rbd:{POOL}/source")
        self.assertLessEqual(status()["left"], 4 * MIB)
        with Target("vm.qcow2") as s:
            self.check_same(s.uri, "right.raw")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        platter("compare", "-F", "raw", "vm.qcow2@first", "disk.raw")
        platter("compare", "-F", "raw", "vm.qcow2@second", "second.raw")
        self.check_alone("vm.qcow2", "right.raw")

    def test_abort(self):
        """The snapshots that came along go with the image; none does while one is there that is somebody else's."""
        self.change()
        migrate("prepare", "--snapshots", "a.qcow2", TARGET)
        rbd("snap", "create", f"{POOL}/vm@mine")
        self.assertIn('snapshot "mine"', migrate("abort", TARGET, code=1).stderr)
        self.check_states()
        rbd("snap", "rm", f"{POOL}/vm@mine")
        rbd("snap", "protect", f"{POOL}/vm@two")
        self.assertIn("protected", migrate("abort", TARGET, code=1).stderr)
        self.check_states()
        rbd("snap", "unprotect", f"{POOL}/vm@two")
        migrate("abort", TARGET)
        self.assertEqual(names(), [])

    def test_refused(self):
        make_content("state", 300 * KIB, 4)
        platter("snapshot", "state", "--import=state", "a.qcow2", "running")
        self.assertIn("the state of a machine", migrate("prepare", "--snapshots", "a.qcow2", TARGET, code=1).stderr)
        self.assertEqual(names(), [])


if __name__ == "__main__":
    main()
