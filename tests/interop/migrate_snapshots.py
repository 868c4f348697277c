# SPDX-License-Identifier: MIT
"""Snapshots that come along in a live migration: copied when it is prepared, and only what differs from the
newest of them is fetched afterwards.

Usage: migrate_snapshots.py Shapes|Edges
"""
import json
import os
import random
import signal
import subprocess
import time

from migrate import MigrateCase, Target, migrate, status
from peers import KIB, MIB, PLATTER, main, make_content, platter, qemu_img, qemu_io, run, sha256
from serve import SIZE

SIZES = {"first": 6 * MIB, "second": 8 * MIB, "third": 7 * MIB}


def listed(image):
    """What qemu-img has of its snapshots, but for when they were made to the last digit."""
    told = json.loads(qemu_img("info", "--output=json", image).stdout)
    return [(s["id"], s["name"], s["vm-state-size"], s["date-sec"]) for s in told["snapshots"]]


class SnapshotCase(MigrateCase):
    def check_snapshots(self, source, target="vm.qcow2", same_size=True):
        """By us, with their own sizes, and by qemu-img, which gives all of them that of the disk."""
        self.assertEqual(listed(target), listed(source))
        qemu_img("check", "-q", target)
        for _, name, _, _ in listed(source):
            for image, raw in ((source, "source.raw"), (target, "target.raw")):
                qemu_img("convert", "-l", name, "-O", "raw", image, raw)
            self.assertTrue(not same_size or sha256("target.raw") == sha256("source.raw"), name)
            self.assertEqual(platter("digest", f"{target}@{name}").stdout.split()[0],
                             platter("digest", f"{source}@{name}").stdout.split()[0])

    def work(self, image, seed):
        rng = random.Random(seed)
        size = json.loads(qemu_img("info", "--output=json", image).stdout)["virtual-size"]
        commands = []
        for _ in range(12):
            length = rng.choice([512, 4 * KIB, 64 * KIB, 500 * KIB])
            off = rng.randrange((size - length) // 512) * 512
            kind = rng.choice([f"write -P {rng.randrange(1, 256)}", "write -z", "write -z -u", "discard"])
            commands.append(f"{kind} {off} {length}")
        qemu_io(image, "qcow2", *commands)

    def grown(self, image, sizes=None):
        """Three snapshots with work around them."""
        for n, (name, size) in enumerate((sizes or dict.fromkeys(SIZES, 0)).items()):
            if size:
                qemu_img("resize", "-q", "--shrink", image, size)
            self.work(image, n)
            qemu_img("snapshot", "-c", name, image)
        self.work(image, 10)

    def whole_way(self, source, *options):
        """From prepare to commit, while a guest is at it."""
        qemu_img("convert", "-O", "raw", source, "right.raw")
        before = sha256(source)
        self.prepare("--snapshots", *options, source)
        run("cp", "right.raw", "shadow.raw")
        with Target("vm.qcow2") as s:
            self.assertEqual(self.read_all(s.uri, "right.raw"), [])
            self.guest(s.uri, "shadow.raw", 1)
            migrate("execute", "vm.qcow2")
            self.assertEqual((status()["state"], status()["left"]), ("executed", 0))
            self.guest(s.uri, "shadow.raw", 2, 10)
            migrate("commit", "vm.qcow2")
            self.guest(s.uri, "shadow.raw", 3, 10)
        self.check_snapshots(source)
        self.check_alone("vm.qcow2", "shadow.raw")
        self.assertEqual(sha256(source), before)

    def guest(self, uri, shadow, seed, count=40):
        """It writes no further than the source reaches, so that any size will do."""
        if os.path.getsize(shadow) >= SIZE:
            super().guest(uri, shadow, seed, count)


class Shapes(SnapshotCase):
    def test_plain(self):
        self.make("a.qcow2")
        self.grown("a.qcow2")
        self.whole_way("a.qcow2")

    def test_compressed(self):
        self.make("packed.qcow2")
        self.grown("packed.qcow2")
        self.whole_way("packed.qcow2")

    def test_sizes(self):
        """Each has its own, and the disk as well."""
        for n, now in enumerate((7 * MIB, 8 * MIB + 512, 6 * MIB + 512 * 3)):
            self.make("a.qcow2")
            self.grown("a.qcow2", SIZES)
            qemu_img("resize", "-q", "--shrink", "a.qcow2", now)
            self.work("a.qcow2", n + 20)
            self.whole_way("a.qcow2")

    def test_larger_target(self):
        """What is behind the source is zeros, also where a snapshot has bytes there."""
        self.make("a.qcow2")
        self.grown("a.qcow2", SIZES)
        qemu_img("snapshot", "-c", "last", "a.qcow2")
        qemu_img("resize", "-q", "--shrink", "a.qcow2", 3 * MIB + 512)
        qemu_img("convert", "-O", "raw", "a.qcow2", "right.raw")
        os.truncate("right.raw", 9 * MIB)
        self.prepare("--snapshots", "--size", "9M", "a.qcow2")
        with Target("vm.qcow2") as s:
            self.check_same(s.uri, "right.raw")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_snapshots("a.qcow2", same_size=False)
        self.check_alone("vm.qcow2", "right.raw")

    def test_clusters(self):
        """Smaller and larger ones on either side, and parts of them."""
        for source, target in (("cluster_size=4k", "cluster_size=64k"), ("cluster_size=64k", "cluster_size=512"),
                               ("cluster_size=4k", "cluster_size=2M"), ("extended_l2=on", "extended_l2=on"),
                               ("cluster_size=512", "extended_l2=on,cluster_size=32k"), ("compat=0.10", "refcount_bits=64")):
            qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", source, "disk.raw", "a.qcow2")
            self.grown("a.qcow2")
            self.whole_way("a.qcow2", "-o", target)

    def test_chain(self):
        """What none of them stores comes from below, in all of them."""
        self.make("a.qcow2")
        os.rename("a.qcow2", "base.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        self.grown("top.qcow2")
        self.whole_way("top.qcow2")

    def test_encrypted(self):
        with open("pw", "w", encoding="ascii") as f:
            f.write("secret")
        self.make("a.qcow2")
        self.grown("a.qcow2")
        self.prepare("--snapshots", "-o", "encrypt.format=luks,encrypt.iter-time=10", "--key-file", "pw", "a.qcow2")
        with Target("--key-file", "pw", "vm.qcow2") as s:
            qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", "a.qcow2", s.uri)
        for verb in ("execute", "commit"):
            migrate(verb, "--key-file", "pw", "vm.qcow2")
        for name in SIZES:
            self.assertEqual(platter("digest", "--key-file", "pw", f"vm.qcow2@{name}").stdout.split()[0],
                             platter("digest", f"a.qcow2@{name}").stdout.split()[0])

    def test_states_of_a_raw(self):
        """The older states that a source-spec has."""
        older = []
        for n, size in enumerate((MIB, 3 * MIB)):
            make_content(f"{n}.raw", size, n)
            older.append({"type": "raw", "name": f"state{n}", "stream": {"type": "file", "file_path": f"{self.dir}/{n}.raw"}})
        run("cp", "1.raw", "now.raw")
        os.truncate("now.raw", 4 * MIB)
        with open("now.raw", "r+b") as f:
            f.seek(2 * MIB)
            f.write(b"\5" * 64 * KIB)
        spec = {"type": "raw", "stream": {"type": "file", "file_path": f"{self.dir}/now.raw"}, "snapshots": older}
        self.prepare("--snapshots", "--source-spec", json.dumps(spec))
        self.assertEqual(status()["left"], 64 * KIB)
        with Target("vm.qcow2") as s:
            self.check_same(s.uri, "now.raw")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        for n in range(2):
            platter("compare", "-F", "raw", f"vm.qcow2@state{n}", f"{n}.raw")
        self.assertEqual([s[1] for s in listed("vm.qcow2")], ["state0", "state1"])
        self.check_alone("vm.qcow2", "now.raw")

    def test_state_of_a_machine(self):
        self.make("a.qcow2")
        make_content("state", 300 * KIB + 5, 4)
        platter("snapshot", "state", "--import=state", "a.qcow2", "running")
        self.work("a.qcow2", 1)
        self.whole_way("a.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        platter("snapshot", "state", "--export=there", "vm.qcow2", "running")
        self.assertEqual(sha256("there"), sha256("state"))


class Edges(SnapshotCase):
    def test_only_what_changed(self):
        """That is what is left to fetch, and what is in the newest snapshot is there."""
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
        qemu_io("a.qcow2", "qcow2", "write -P 1 0 20M")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        qemu_img("snapshot", "-c", "two", "a.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        self.assertEqual((status()["copied"], status()["left"]), (20 * MIB, 0))
        migrate("abort", "vm.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 2 1M 128k", "write -P 3 40M 64k", "write -z -u 4M 1M")
        self.prepare("--snapshots", "a.qcow2")
        self.assertEqual((status()["copied"], status()["left"]), (19 * MIB - 128 * KIB, 192 * KIB))
        migrate("execute", "vm.qcow2")
        self.assertEqual((status()["copied"], status()["left"]), (19 * MIB + 64 * KIB, 0))
        migrate("commit", "vm.qcow2")
        self.check_snapshots("a.qcow2")
        self.assertLess(os.path.getsize("vm.qcow2"), 21 * MIB)

    def test_none(self):
        """A source that can have some, and has not."""
        self.make("a.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")

    def test_guest_over_snapshots(self):
        """What it writes over, zeroes and trims is still in the snapshots, which nobody sees yet."""
        self.make("a.qcow2")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        with Target("vm.qcow2") as s:
            qemu_io(s.uri, "raw", "write -P 9 512 1M", "discard 2M 1M", "write -z -u 4M 1M", "flush")
        self.assertIn("Unknown protocol", qemu_img("info", "-U", "--backing-chain", "vm.qcow2", code=1).stderr)
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_snapshots("a.qcow2")
        qemu_io("vm.qcow2", "qcow2", "read -P 9 512 1M", "read -P 0 4M 1M")

    def refused(self, words, *argv):
        self.assertIn(words, migrate("prepare", "--snapshots", *argv, code=1).stderr)
        self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])

    def test_refused(self):
        self.make("a.qcow2")
        self.make("sparse.vmdk")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        self.refused("a raw file cannot have snapshots", "-O", "raw", "a.qcow2", "vm.raw")
        self.refused("only between images of formats that have them", "sparse.vmdk", "vm.qcow2")
        self.refused("has no snapshots", "a.qcow2@one", "vm.qcow2")
        self.refused("version 2", "-o", "compat=0.10", "a.qcow2", "vm.qcow2")
        self.refused("room set aside", "-o", "preallocation=metadata", "a.qcow2", "vm.qcow2")
        self.refused("at least", "--size", "1M", "a.qcow2", "vm.qcow2")

    def test_killed(self):
        """What is left of a preparation is in nobody's way, and no file of others is taken for it."""
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1G")
        qemu_io("a.qcow2", "qcow2", "write -P 1 0 400M")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        for n in range(3):
            job = subprocess.Popen([PLATTER, "migrate", "prepare", "--snapshots", "a.qcow2", "vm.qcow2"])
            while job.poll() is None and not os.path.exists("vm.qcow2.migration"):
                time.sleep(0.001)
            time.sleep(0.03 * n)
            job.send_signal(signal.SIGKILL)
            job.wait()
            self.assertFalse(os.path.exists("vm.qcow2"))
            migrate("execute", "vm.qcow2", code=1)
        run("cp", "disk.raw", "vm.qcow2")
        self.assertIn("exists", migrate("prepare", "--snapshots", "a.qcow2", "vm.qcow2", code=1).stderr)
        self.assertEqual(sha256("vm.qcow2"), sha256("disk.raw"))
        os.unlink("vm.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_snapshots("a.qcow2")

    def test_source_changes(self):
        """Since they were copied: it is another one."""
        self.make("a.qcow2")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        self.prepare("--snapshots", "a.qcow2")
        self.work("a.qcow2", 4)
        migrate("execute", "vm.qcow2", code=6)
        migrate("abort", "vm.qcow2")
        self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])

    def test_source_changes_meanwhile(self):
        """While they are copied: nothing is made of it."""
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1G")
        qemu_io("a.qcow2", "qcow2", "write -P 1 0 400M")
        qemu_img("snapshot", "-c", "one", "a.qcow2")
        job = subprocess.Popen([PLATTER, "migrate", "prepare", "--snapshots", "a.qcow2", "vm.qcow2"],
                               stderr=subprocess.PIPE, text=True)
        while job.poll() is None and not os.path.exists("vm.qcow2.migration"):
            time.sleep(0.001)
        os.utime("a.qcow2", (1, 1))
        self.assertIn("a.qcow2", job.communicate()[1])
        self.assertEqual(job.returncode, 6)
        self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])


if __name__ == "__main__":
    main()
