# SPDX-License-Identifier: MIT
"""Snapshots of a qcow2 become snapshots in Ceph, each as what differs from the one before; and back."""
from peers import KIB, MIB, Case, main, platter, qemu_img, qemu_io, sha256
from pool import POOL, differences, export, names, rbd, remove

STATES = ("one", "two", "three", None)


def at(image, snapshot):
    return f"{image}@{snapshot}" if snapshot else image


class Snapshots(Case):

    def setUp(self):
        super().setUp()
        qemu_img("create", "-q", "-f", "qcow2", "vm.qcow2", "64M")
        for commands, snapshot in (
                (["write -P 1 0 20M", "write -P 2 30M 1M"], "one"),
                (["write -P 3 1M 64k", "write -z -u 4M 3M"], "two"), ([], "three"),
                (["write -P 4 30M 4k", "write -P 5 63M 1M"], None)):
            if commands:
                qemu_io("vm.qcow2", "qcow2", *commands)
            if snapshot:
                qemu_img("snapshot", "-c", snapshot, "vm.qcow2")

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    def test_there_and_back(self):
        platter("convert", "--snapshots", "-O", "raw", "vm.qcow2", f"rbd:{POOL}/vm")
        self.assertEqual(names(), ["vm"])
        for state in STATES:
            platter("convert", "-f", "qcow2", "-O", "raw", *(["-l", state] if state else []),
                    "vm.qcow2", "state.raw")
            self.assertEqual(sha256(export(at("vm", state), "ceph.raw")), sha256("state.raw"))
        # Ceph tells of objects from their beginning on.
        self.assertEqual(differences("vm@two", "one"), [(MIB, 64 * KIB), (4 * MIB, 3 * MIB)])
        self.assertEqual(differences("vm@three", "two"), [])
        self.assertEqual(differences("vm", "three"), [(28 * MIB + 2 * MIB, 64 * KIB),
                                                      (60 * MIB, 4 * MIB)])
        platter("convert", "--snapshots", "-f", "raw", "-O", "qcow2", f"rbd:{POOL}/vm",
                "back.qcow2")
        qemu_img("check", "-f", "qcow2", "back.qcow2")
        for state in STATES:
            platter("compare", at("vm.qcow2", state), at("back.qcow2", state))

    def test_changes(self):
        place = f"rbd:{POOL}/one"
        platter("create", "-f", "raw", place, "9M")
        platter("snapshot", "-f", "raw", "-c", "empty", place)
        rbd("bench", "--io-type=write", "--io-total=1M", f"{POOL}/one")
        platter("snapshot", "-f", "raw", "-c", "empty", place, code=1)
        platter("snapshot", "-f", "raw", "-c", "a/b", place, code=1)
        self.assertNotEqual(differences("one"), [])
        platter("snapshot", "-f", "raw", "-a", "empty", place)
        with open(export("one", "now"), "rb") as f:
            self.assertEqual(set(f.read()), {0})
        platter("snapshot", "-f", "raw", "-d", "empty", place)
        self.assertEqual(rbd("snap", "ls", f"{POOL}/one").stdout, "")


main()
