# SPDX-License-Identifier: MIT
"""Snapshots of real machines, memory included: QEMU takes them, we list, read, export, delete and carry
them over, and QEMU goes on from what is left; and the other way round."""
import json
import os
import random

from machine import Machine, Refused, start_fails
from peers import KIB, MIB, Case, add_case, main, platter, qemu_img, sha256

SIZE = 24 * MIB
NAMES = ["one", "two", "three"]
SHAPES = {
    "64k": "cluster_size=64k",
    "small": "cluster_size=4k,refcount_bits=4",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "lazy": "cluster_size=64k,lazy_refcounts=on",
}


def change(machine, flat, rng):
    """Writes, zeros and discards by the machine; `flat` follows."""
    for _ in range(6):
        off = rng.randrange(SIZE // 512) * 512
        length = min(rng.choice([512, 8 * KIB, 70000 // 512 * 512, MIB]), SIZE - off)
        byte = rng.randrange(256)
        if byte % 3 == 0:
            machine.io(f"write -z {off} {length}")
            byte = 0
        else:
            machine.io(f"write -P {byte} {off} {length}")
        flat[off:off + length] = bytes([byte]) * length


class Snapshots(Case):
    def begin(self, options, seed):
        self.rng = random.Random(seed)
        self.flat = bytearray(SIZE)
        self.disks, self.memories = {}, {}
        maker = self.rng.choice((platter, qemu_img))
        maker("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", SIZE)

    def take(self):
        """Three snapshots by a machine that runs, with changes between and after. Its memory holds 3 MiB
        that nothing but the snapshots can bring back."""
        with open("memory.bin", "wb") as file:
            file.write(self.rng.randbytes(3 * MIB))
        loader = "loader,file=memory.bin,addr=0x400000,force-raw=on"
        with Machine("a.qcow2", options=["-device", loader]) as machine:
            for name in NAMES:
                change(machine, self.flat, self.rng)
                machine.do("stop")
                self.memories[name] = machine.memory()
                machine.human(f"savevm {name}")
                self.disks[name] = bytes(self.flat)
                machine.do("cont")
            change(machine, self.flat, self.rng)

    def check_disk(self, content, *argv):
        platter("convert", "-O", "raw", *argv, "out.raw")
        with open("out.raw", "rb") as file:
            self.assertTrue(file.read() == content, f"{argv}: not the disk it was")

    def check_list(self, image, names):
        ours = json.loads(platter("snapshot", "list", "--output=json", image).stdout)
        theirs = json.loads(qemu_img("info", "--output=json", image).stdout)["snapshots"]
        self.assertEqual([snapshot["name"] for snapshot in ours], names)
        for mine, peers in zip(ours, theirs, strict=True):
            self.assertEqual({key: mine[key] for key in peers}, peers)
            self.assertGreater(mine["vm-state-size"], 0)
        self.assertEqual(platter("snapshot", "-l", image).stdout,
                         qemu_img("snapshot", "-l", image).stdout)
        return {snapshot["name"]: snapshot for snapshot in ours}

    def check_sound(self, image):
        platter("check", "-q", image)
        qemu_img("check", "-q", image)

    def goes_on(self, image, name, was):
        """A machine starts from a snapshot: with the memory and the disk that were, and it runs."""
        with Machine(image, paused=True, options=["-loadvm", name]) as machine:
            self.assertEqual(machine.memory(), self.memories[was], f"memory of {name}")
            machine.do("cont")
            self.assertTrue(machine.running())
        self.check_disk(self.disks[was], image)
        self.check_sound(image)

    def export(self, image, name, size):
        platter("snapshot", "state", f"--export={name}.state", image, name)
        self.assertEqual(os.path.getsize(f"{name}.state"), size)
        with open(f"{name}.state", "rb") as file:
            self.assertEqual(file.read(4), b"QEVM")


def taken_by_machine(self, options, seed):
    """What a machine saved we list, read, export and delete; it goes on from all that is left, from a
    state that was taken out and in again, and from a copy."""
    self.begin(options, seed)
    with Machine("a.qcow2", paused=True) as machine:
        fresh = machine.memory()
    self.take()
    self.assertEqual(len({fresh, *self.memories.values()}), 1 + len(set(self.memories.values())))
    listed = self.check_list("a.qcow2", NAMES)
    self.assertGreater(listed["two"]["vm-state-size"], 3 * MIB)
    self.check_sound("a.qcow2")
    self.check_disk(bytes(self.flat), "a.qcow2")
    for name in NAMES:
        self.check_disk(self.disks[name], "-f", "qcow2", "--view", name, "a.qcow2")
        platter("snapshot", "read", "a.qcow2", name, "read.raw")
        self.assertEqual(sha256("read.raw"), sha256("out.raw"))
        self.export("a.qcow2", name, listed[name]["vm-state-size"])

    platter("convert", "--snapshots", "-O", "qcow2", "a.qcow2", "copy.qcow2")
    self.check_list("copy.qcow2", NAMES)

    platter("snapshot", "delete", "a.qcow2", "one")
    self.check_sound("a.qcow2")
    self.check_list("a.qcow2", ["two", "three"])
    for name in ("three", "two"):
        self.goes_on("a.qcow2", name, name)
    self.goes_on("copy.qcow2", "one", "one")

    platter("snapshot", "delete", "a.qcow2", "two")
    platter("snapshot", "state", "--import=two.state", "a.qcow2", "again")
    self.check_sound("a.qcow2")
    self.goes_on("a.qcow2", "again", "two")


def made_by_us(self, options, seed):
    """Ours beside theirs: listed and applied by qemu-img, refused by -loadvm where there is no state,
    deleted by a machine that runs."""
    self.begin(options, seed)
    with Machine("a.qcow2") as machine:
        change(machine, self.flat, self.rng)
        machine.do("stop")
        self.memories["state"] = machine.memory()
        machine.human("savevm state")
        self.disks["state"] = bytes(self.flat)
        change(machine, self.flat, self.rng)
    platter("snapshot", "create", "a.qcow2", "plain")
    self.disks["plain"] = bytes(self.flat)
    self.check_sound("a.qcow2")
    listed = qemu_img("snapshot", "-l", "a.qcow2").stdout
    self.assertRegex(listed, r"\bplain +0 B")

    before = sha256("a.qcow2")
    self.assertIn("disk-only snapshot",
                  start_fails("a.qcow2", options=["-loadvm", "plain"]))
    self.assertEqual(sha256("a.qcow2"), before)

    with Machine("a.qcow2") as machine:
        change(machine, self.flat, self.rng)
        with self.assertRaisesRegex(Refused, "disk-only snapshot"):
            machine.human("loadvm plain")
        machine.human("savevm later")
        self.disks["later"] = bytes(self.flat)
    self.check_disk(self.disks["plain"], "-f", "qcow2", "--view", "plain", "a.qcow2")
    qemu_img("snapshot", "-a", "plain", "a.qcow2")
    self.check_disk(self.disks["plain"], "a.qcow2")
    self.check_sound("a.qcow2")
    platter("snapshot", "apply", "a.qcow2", "later")
    self.check_disk(self.disks["later"], "a.qcow2")
    self.check_sound("a.qcow2")

    with Machine("a.qcow2") as machine:
        machine.human("delvm plain")
        machine.human("loadvm state")
        machine.human("delvm later")
    self.check_list("a.qcow2", ["state"])
    self.check_sound("a.qcow2")
    self.check_disk(self.disks["state"], "a.qcow2")
    self.goes_on("a.qcow2", "state", "state")


def encrypted(self, options, seed):
    """A state goes into an encrypted image, where it stands encrypted like the disk, and out again. (A
    machine that saves or loads one there itself aborts, for want of whole sectors.)"""
    self.begin("cluster_size=64k", seed)
    self.take()
    with open("one.key", "w", encoding="ascii") as file:
        file.write("one")
    key, new_key = ["--key-file", "one.key"], ["--new-key-file", "one.key"]
    platter("convert", *new_key, "--snapshots", "-O", "qcow2", "-o", options, "a.qcow2", "b.qcow2")
    self.assertEqual(platter("snapshot", "-l", "b.qcow2").stdout,
                     platter("snapshot", "-l", "a.qcow2").stdout)
    platter("check", "-q", *key, "b.qcow2")
    platter("snapshot", "state", "--export=two.state", "a.qcow2", "two")
    platter("snapshot", "state", *key, "--export=too.state", "b.qcow2", "two")
    self.assertEqual(sha256("too.state"), sha256("two.state"))
    platter("snapshot", "delete", *key, "b.qcow2", "two")
    platter("snapshot", "apply", *key, "b.qcow2", "one")
    platter("snapshot", "state", *key, "--import=two.state", "b.qcow2", "again")
    platter("check", "-q", *key, "b.qcow2")
    platter("convert", *key, "--snapshots", "-O", "qcow2", "b.qcow2", "plain.qcow2")
    self.disks["again"] = self.disks["one"]
    self.memories["again"] = self.memories["two"]
    for name in ("one", "three", "again"):
        self.goes_on("plain.qcow2", name, name)


for number, (shape, create_options) in enumerate(SHAPES.items()):
    add_case(Snapshots, f"taken {shape}", taken_by_machine, create_options, number)
    add_case(Snapshots, f"made {shape}", made_by_us, create_options, 100 + number)
add_case(Snapshots, "taken encrypted", encrypted, "encrypt.format=luks,encrypt.iter-time=10", 200)

main()
