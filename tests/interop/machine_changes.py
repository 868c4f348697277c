# SPDX-License-Identifier: MIT
"""What real machines leave behind: dirty bitmaps that both record in by turns, and images of machines
that were killed while they wrote."""
import json
import os
import random
import shutil

from machine import Machine
from peers import KIB, MIB, POKE, Case, add_case, main, platter, qemu_img, run

SIZE = 24 * MIB
GRAIN = 64 * KIB


def dirty(image, name):
    """The numbers of the grains that are dirty, as we read them."""
    entries = json.loads(platter("map", "--bitmap", name, "--output=json", image).stdout)
    return {number for e in entries if e["dirty"]
            for number in range(e["start"] // GRAIN, -(-(e["start"] + e["length"]) // GRAIN))}


def grains(off, length):
    return set(range(off // GRAIN, -(-(off + length) // GRAIN)))


class Changes(Case):
    def writes(self, rng):
        """(command of qemu-io, the same for poke, what becomes dirty)"""
        for _ in range(5):
            off = rng.randrange(SIZE // 512) * 512
            length = min(rng.choice([512, 4 * KIB, 300 * KIB]), SIZE - off)
            yield f"write -P 7 {off} {length}", f"zero {off} {length}", grains(off, length)

    def peer_writes(self, machine, rng):
        touched = set()
        for command, _, where in self.writes(rng):
            machine.io(command)
            touched |= where
        return touched

    def we_write(self, image, rng):
        lines, touched = [], set()
        for _, line, where in self.writes(rng):
            lines.append(line)
            touched |= where
        run(POKE, image, "qcow2", input="\n".join(lines) + "\n")
        return touched

    def seen(self, machine, name):
        """How many bytes the machine says are dirty."""
        [drive] = machine.do("query-block")
        [bitmap] = [b for b in drive["inserted"]["dirty-bitmaps"] if b["name"] == name]
        self.assertTrue(bitmap["persistent"] and bitmap["recording"])
        self.assertFalse(bitmap.get("inconsistent", False))
        return bitmap["count"]

    def check_sound(self, image):
        platter("check", "-q", image)
        qemu_img("check", "-q", image)


def bitmaps(self, options, seed):
    """One that the machine made and one of ours; both record all that either of us writes."""
    rng = random.Random(seed)
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", SIZE)
    platter("bitmap", "--add", "-g", GRAIN, "a.qcow2", "ours")
    with Machine("a.qcow2") as machine:
        all_dirty = self.peer_writes(machine, rng)
        self.assertEqual(self.seen(machine, "ours"), len(all_dirty) * GRAIN)
        machine.do("block-dirty-bitmap-add", node="drive0", name="theirs", persistent=True,
                   granularity=GRAIN)
        late = self.peer_writes(machine, rng)
        all_dirty |= late
    self.check_sound("a.qcow2")
    for _ in range(2):
        self.assertEqual(dirty("a.qcow2", "ours"), all_dirty)
        self.assertEqual(dirty("a.qcow2", "theirs"), late)
        touched = self.we_write("a.qcow2", rng)
        all_dirty |= touched
        late |= touched
        self.check_sound("a.qcow2")
        with Machine("a.qcow2") as machine:
            self.assertEqual(self.seen(machine, "ours"), len(all_dirty) * GRAIN)
            self.assertEqual(self.seen(machine, "theirs"), len(late) * GRAIN)
            touched = self.peer_writes(machine, rng)
        all_dirty |= touched
        late |= touched
    platter("bitmap", "--clear", "a.qcow2", "theirs")
    with Machine("a.qcow2", paused=True) as machine:
        self.assertEqual(self.seen(machine, "theirs"), 0)
        machine.do("block-dirty-bitmap-remove", node="drive0", name="ours")
    names = [b["name"] for b in json.loads(
        platter("bitmap", "list", "--output=json", "a.qcow2").stdout)]
    self.assertEqual(names, ["theirs"])
    self.check_sound("a.qcow2")


def killed_with_bitmap(self, options, _):
    """It is not known what is dirty, which everybody says; and it can be given up."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", SIZE)
    platter("bitmap", "--add", "a.qcow2", "b")
    with Machine("a.qcow2") as machine:
        machine.io("write -P 1 0 1M")
        machine.kill()
    platter("check", "-q", "-r", "all", "a.qcow2")
    self.assertNotEqual(platter("map", "--bitmap", "b", "a.qcow2", code=1).stderr, "")
    platter("bitmap", "--remove", "a.qcow2", "b")
    self.check_sound("a.qcow2")


STEP = 256 * KIB  # of one write, behind what was flushed
FLUSHED = 4 * MIB


def kill_in_writing(image):
    """4 MiB that were flushed, and then writes, one of which is known to have ended."""
    with Machine(image) as machine:
        machine.io(f"write -P 1 0 {FLUSHED}")
        machine.io("flush")
        for off in range(FLUSHED, SIZE, STEP):
            machine.send("human-monitor-command",
                         command_line=f'qemu-io drive0 "write -P 2 {off} {STEP}"')
        machine.answer()
        machine.kill()


def is_dirty(image):
    return json.loads(platter("info", "--output=json", image).stdout)["dirty-flag"]


def check_content(self, image):
    platter("convert", "-O", "raw", image, "out.raw")
    with open("out.raw", "rb") as file:
        self.assertTrue(file.read(FLUSHED) == b"\1" * FLUSHED, "what was flushed is there")
        while sector := file.read(512):
            self.assertIn(sector, (bytes(512), b"\2" * 512))


def killed(self, options, _):
    """What was flushed is there, the rest is old or new; we mend it, and a machine starts from it."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", SIZE)
    kill_in_writing("a.qcow2")
    unclean = "lazy" in options
    check_content(self, "a.qcow2")
    self.assertEqual(is_dirty("a.qcow2"), unclean)
    # Where lazy counts were written after all there is nothing to find; else they are too low.
    platter("check", "-q", "a.qcow2", code={0, 2, 3} if unclean else {0, 3})
    shutil.copy("a.qcow2", "opened.qcow2")
    platter("check", "-q", "-r", "all", "a.qcow2")
    # Who opens an image for writing that was not closed mends it first; leaks may stay elsewhere.
    run(POKE, "opened.qcow2", "qcow2", input=f"zero {SIZE - 512} 512\n")
    platter("check", "-q", "opened.qcow2", code={0} if unclean else {0, 3})
    for image in ("a.qcow2", "opened.qcow2"):
        self.assertFalse(is_dirty(image))
        check_content(self, image)
        qemu_img("check", "-q", image, code={0} if unclean or image == "a.qcow2" else {0, 3})
        with Machine(image) as machine:
            machine.io(f"read -P 1 0 {FLUSHED}")
            machine.io("write -P 2 4M 1M")
        check_content(self, image)


def killed_in_savevm(self, options, _):
    """The snapshot before it is whole, whatever became of the one that was being made."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", SIZE)
    with Machine("a.qcow2", paused=True) as machine:
        machine.io("write -P 1 0 1M")
        memory = machine.memory()
        machine.human("savevm first")
        machine.io("write -P 2 0 1M")
        before = os.path.getsize("a.qcow2")
        machine.send("human-monitor-command", command_line="savevm second")
        while os.path.getsize("a.qcow2") == before and not machine.answered(within=0.001):
            pass
        machine.kill()
    platter("check", "-q", "-r", "all", "a.qcow2")
    self.check_sound("a.qcow2")
    with Machine("a.qcow2", paused=True, options=["-loadvm", "first"]) as machine:
        self.assertEqual(machine.memory(), memory)
        machine.io("read -P 1 0 1M")


for number, create_options in enumerate(["cluster_size=64k", "cluster_size=4k,lazy_refcounts=on",
                                         "extended_l2=on,lazy_refcounts=on"]):
    for way in (bitmaps, killed_with_bitmap, killed, killed_in_savevm):
        add_case(Changes, f"{way.__name__} {create_options}", way, create_options, number)

main()
