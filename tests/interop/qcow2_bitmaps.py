# SPDX-License-Identifier: MIT
"""Dirty bitmaps: both programs write through each other's, and say the same of what is dirty.

The peer tells what is dirty by serving a bitmap over NBD, and maps that; it writes through a server
of its own, so that its bitmaps are closed as a machine closes them.
"""
import json
import os
import random
import signal
import subprocess
import time

from peers import KIB, MIB, Case, add_case, main, platter, qemu_img, qemu_io

SIZE = 24 * MIB + 512
GRAINS = {"fine": 4 * KIB, "coarse": 256 * KIB}


def dirty_by_us(image, name):
    entries = json.loads(platter("map", "--bitmap", name, "--output=json", image).stdout)
    return [(e["start"], e["length"]) for e in entries if e["dirty"]]


class Served:
    """An image that the peer serves, read-only with one of its bitmaps, or to be written."""

    def __init__(self, image, *options):
        self.socket = os.path.abspath("socket")
        self.server = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", self.socket, *options,
                                        image])
        for _ in range(500):
            if os.path.exists(self.socket):
                break
            time.sleep(0.01)

    def __enter__(self):
        return f"nbd+unix:///?socket={self.socket}"

    def __exit__(self, *_):
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(60)
        if os.path.exists(self.socket):
            os.remove(self.socket)


def dirty_by_peer(image, name):
    with Served(image, "-r", "-B", name):
        text = qemu_img("map", "--output=json", "--image-opts",
                        f"driver=nbd,server.type=unix,server.path={os.path.abspath('socket')},"
                        f"x-dirty-bitmap=qemu:dirty-bitmap:{name}").stdout
    runs = []
    for entry in json.loads(text):
        if entry["data"]:
            continue
        start, length = entry["start"], entry["length"]
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    return runs


def changes(rng):
    for _ in range(12):
        off = rng.randrange(SIZE // 512) * 512
        length = min(rng.choice([512, 4096, 70000 // 512 * 512, MIB]), SIZE - off)
        yield rng.choice(["write -P 7", "write -P 9", "write -z", "discard"]), off, length


def peer_writes(image, rng):
    commands = [f"{what} {off} {length}" for what, off, length in changes(rng)]
    with Served(image) as address:
        qemu_io(address, "raw", *commands)


def we_write(image, rng):
    for _ in range(4):
        off = rng.randrange(SIZE // MIB) * MIB + rng.randrange(16) * 4096
        platter("bench", "-w", "-q", "-c", "3", "-s", "4096", "-S", "40960", "-o", off, image)


def mixed(self, options, seed):
    """Writes by turns; after each the two agree, and the peer's check is content."""
    rng = random.Random(seed)
    qemu_img("create", "-q", "-f", "qcow2", *options, "a.qcow2", SIZE)
    makers = [qemu_img, platter]
    rng.shuffle(makers)
    for maker, (name, grain) in zip(makers, GRAINS.items()):
        maker("bitmap", "--add", "-g", grain, "a.qcow2", name)
    for turn in range(4):
        (we_write if turn % 2 else peer_writes)("a.qcow2", rng)
        qemu_img("check", "-q", "a.qcow2")
        self.check_info("a.qcow2", "qcow2")
        for name in GRAINS:
            ours = dirty_by_us("a.qcow2", name)
            self.assertTrue(ours, "something is dirty")
            self.assertEqual(ours, dirty_by_peer("a.qcow2", name), f"{name} after turn {turn}")


def merged(self, options, seed):
    """The same merges, clears and copies by both come to the same."""
    rng = random.Random(seed)
    qemu_img("create", "-q", "-f", "qcow2", *options, "ours.qcow2", SIZE)
    for name, grain in GRAINS.items():
        platter("bitmap", "--add", "-g", grain, "ours.qcow2", name)
    peer_writes("ours.qcow2", rng)
    platter("bitmap", "--clear", "ours.qcow2", "coarse")
    we_write("ours.qcow2", rng)
    with open("ours.qcow2", "rb") as source, open("theirs.qcow2", "wb") as copy:
        copy.write(source.read())
    for program, image in ((platter, "ours.qcow2"), (qemu_img, "theirs.qcow2")):
        program("bitmap", "--add", "-g", 64 * KIB, "--disable", "--merge", "fine", image, "sum")
        program("bitmap", "--merge", "sum", image, "coarse")
        program("bitmap", "--merge", "coarse", image, "fine")
        program("convert", "--bitmaps", "-O", "qcow2", image, f"new-{image}")
        qemu_img("check", "-q", image)
    for image in ("", "new-"):
        for name in [*GRAINS, "sum"]:
            dirty = dirty_by_us(f"{image}theirs.qcow2", name)
            self.assertEqual(dirty_by_us(f"{image}ours.qcow2", name), dirty)
            self.assertEqual(dirty_by_peer(f"{image}ours.qcow2", name), dirty)
        qemu_img("check", "-q", f"{image}ours.qcow2")


def resized(self, options, seed):
    """Grown by one and shrunk by the other, what is still there stays dirty."""
    rng = random.Random(seed)
    qemu_img("create", "-q", "-f", "qcow2", *options, "a.qcow2", SIZE)
    platter("bitmap", "--add", "-g", GRAINS["fine"], "a.qcow2", "fine")
    peer_writes("a.qcow2", rng)
    for size in (SIZE + 9 * MIB, 5 * MIB + 512, 40 * MIB):
        with open("a.qcow2", "rb") as source, open("theirs.qcow2", "wb") as copy:
            copy.write(source.read())
        for program, image in ((platter, "a.qcow2"), (qemu_img, "theirs.qcow2")):
            program("resize", "-q", "--shrink", image, size)
        qemu_img("check", "-q", "a.qcow2")
        self.assertEqual(dirty_by_us("a.qcow2", "fine"), dirty_by_us("theirs.qcow2", "fine"))
        self.assertEqual(dirty_by_us("a.qcow2", "fine"), dirty_by_peer("a.qcow2", "fine"))


class Qcow2Bitmaps(Case):
    pass


for number, (kind, extra) in enumerate({
        "64k": [], "512": ["-o", "cluster_size=512"], "2M": ["-o", "cluster_size=2M"],
        "narrow": ["-o", "cluster_size=4k,refcount_bits=1"],
        "subclusters": ["-o", "extended_l2=on"]}.items()):
    for way in (mixed, merged, resized):
        add_case(Qcow2Bitmaps, f"{kind}-{way.__name__}", way, extra, 50 + number)

main()
