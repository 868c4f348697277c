# SPDX-License-Identifier: MIT
"""Live migration: a disk that is used over NBD at its new place, while it is copied there.

Usage: migrate.py Sources|Guest|Owners|Ends|Faults
"""
import json
import os
import random
import signal
import socket
import subprocess
import time

import nbd
from nbd_servers import free_port, nbdkit
from peers import KIB, MIB, PLATTER, Failed, main, make_content, platter, qemu_img, qemu_io, run, sha256
from serve import PLUGIN, SIZE, Serve, ServeCase, wait_until
from web_servers import Faulty, Nginx

QUICK = "timeout=1,connect_timeout=2,retry_time=4"
TARGETS = {"vm.qcow2": [], "vm.raw": ["-O", "raw"]}
UNREADABLE, NOT_EXECUTED, CHANGED = 4, 5, 6

class Target(Serve):
    """platter migrate serve while a block runs."""

    def __init__(self, *argv, code=0):
        super().__init__(*argv, code=code)
        self.argv = [PLATTER, "migrate", "serve", *argv]


def migrate(verb, *argv, **more):
    return platter("migrate", verb, *argv, **more)


def content(path):
    with open(path, "rb") as f:
        return f.read()


def status(target="vm.qcow2"):
    return json.loads(migrate("status", "--output=json", target).stdout)


def wait_for_state(state, target="vm.qcow2"):
    wait_until(lambda: status(target)["state"] == state, state)


class Background:
    """A command that runs beside; ended if it still does."""

    def __init__(self, *argv):
        self.argv = [PLATTER, "migrate", *argv]

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def end(self, code=0, timeout=120):
        said, _ = self.process.communicate(timeout=timeout)
        if self.process.returncode != code or "Sanitizer" in said:
            raise Failed(f"{self.argv} ended with {self.process.returncode}: {said}")
        return said

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class MigrateCase(ServeCase):
    def prepare(self, *argv, target="vm.qcow2", **more):
        return migrate("prepare", *TARGETS[target], *argv, target, **more)

    def read_all(self, uri, raw="disk.raw", unit=64 * KIB):
        """Where it could not be read; all else is right."""
        bad = []
        right = content(raw)
        h = nbd.NBD()
        h.connect_uri(uri)
        for off in range(0, len(right), unit):
            length = min(unit, len(right) - off)
            try:
                got = h.pread(length, off)
            except nbd.Error as e:
                self.assertEqual(e.errno, "EIO")
                bad.append(off)
                continue
            self.assertTrue(got == right[off:off + length], f"wrong bytes at {off}")
        h.shutdown()
        return bad

    def guest(self, uri, shadow, seed, count=40):
        """Writes, zeros and trims, and the same into a raw file. What was trimmed is zeros, or what it was
        before; how it is must not change any more."""
        rng = random.Random(seed)
        commands, trimmed = [], set()
        with open(shadow, "r+b") as f:
            for _ in range(count):
                length = rng.choice([512, 4 * KIB, 64 * KIB, 300 * KIB])
                off = rng.randrange((SIZE - length) // 512) * 512
                pattern, kind = rng.randrange(1, 256), rng.choice(["write", "write", "zero", "fua", "unmap", "trim"])
                options = {"zero": "-z", "unmap": "-z -u", "fua": f"-f -P {pattern}"}.get(kind, f"-P {pattern}")
                sectors = range(off // 512, (off + length) // 512)
                if kind == "trim":
                    trimmed.update(sectors)
                    commands.append(f"discard {off} {length}")
                    continue
                f.seek(off)
                f.write(bytes([0 if kind in ("zero", "unmap") else pattern]) * length)
                commands.append(f"write {options} {off} {length}")
                trimmed.difference_update(sectors)
                commands += ["flush"] * (rng.randrange(5) == 0)
        qemu_io(uri, "raw", *commands)
        self.settle(uri, shadow, trimmed)

    def settle(self, uri, shadow, trimmed):
        run("nbdcopy", uri, "settled.raw")
        with open("settled.raw", "rb") as now, open(shadow, "r+b") as f:
            for sector in sorted(trimmed):
                now.seek(512 * sector)
                f.seek(512 * sector)
                is_now, was = now.read(512), f.read(512)
                self.assertTrue(is_now == was or not any(is_now), f"what was trimmed, sector {sector}, is another thing")
                f.seek(512 * sector)
                f.write(is_now)
        os.unlink("settled.raw")
        self.check_same(uri, shadow)

    def check_alone(self, target, raw):
        """The target is an image like any other, and nothing else is left."""
        fmt = "raw" if target == "vm.raw" else "qcow2"
        self.check_written(target, fmt, raw)
        told = json.loads(qemu_img("info", "--output=json", "-f", fmt, target).stdout)
        self.assertNotIn("backing-filename", told)
        self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [target])
        os.unlink(target)

    def started(self, server):
        self.addCleanup(server.stop)
        return server


class Sources(MigrateCase):
    def whole_way(self, *source, raw="disk.raw"):
        """From prepare to commit while a guest is at it, into every kind of target."""
        for n, target in enumerate(TARGETS):
            with self.subTest(target):
                self.prepare(*source, target=target)
                self.assertEqual(status(target)["state"], "prepared")
                run("cp", raw, "shadow.raw")
                with Target(target) as s:
                    self.assertEqual(self.read_all(s.uri, raw), [])
                    self.guest(s.uri, "shadow.raw", n)
                    migrate("commit", target, code=NOT_EXECUTED)
                    migrate("execute", target)
                    told = status(target)
                    self.assertEqual((told["state"], told["left"], told["missing"], told["failed-reads"], told["written"]),
                                     ("executed", 0, [], 0, True))
                    self.check_same(s.uri, "shadow.raw")
                    self.guest(s.uri, "shadow.raw", n + 10, 10)
                    migrate("commit", target)
                    migrate("status", target, code=1)
                    self.guest(s.uri, "shadow.raw", n + 20, 10)
                self.check_alone(target, "shadow.raw")

    def test_local_raw(self):
        before = sha256("disk.raw")
        self.whole_way("-f", "raw", "disk.raw")
        self.assertEqual(sha256("disk.raw"), before)

    def test_chain(self):
        self.make("a.qcow2")
        os.rename("a.qcow2", "base.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        qemu_io("top.qcow2", "qcow2", "write -P 5 1M 100k", "write -z 2M 300k")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "right.raw")
        self.whole_way("top.qcow2", raw="right.raw")

    def test_snapshot(self):
        self.make("a.qcow2")
        platter("snapshot", "-c", "first", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 5 0 3M")
        self.whole_way("a.qcow2@first")

    def test_archive(self):
        make_content("small.raw", MIB, 9)
        platter("archive", "create", "-q", "-f", "raw", "a.vma", "-d", "drive-one=disk.raw", "-d", "drive-two=small.raw")
        self.whole_way("a.vma@drive-one")

    def test_compressed(self):
        self.make("stream.vmdk")
        self.whole_way("stream.vmdk")

    def test_http(self):
        os.mkdir("www")
        self.make("packed.qcow2")
        os.rename("packed.qcow2", "www/packed.qcow2")
        server = self.started(Nginx())
        self.whole_way(server.url("packed.qcow2"))

    def test_nbd(self):
        server = self.started(nbdkit("file", "disk.raw", options=["-r"]))
        self.whole_way("-f", "raw", server.uri)

    def test_spec(self):
        self.make("a.qcow2")
        with open("spec.json", "w", encoding="ascii") as f:
            json.dump({"type": "qcow", "stream": {"type": "file", "file_path": f"{self.dir}/a.qcow2"}}, f)
        with open("spec.json", encoding="ascii") as f:
            text = f.read()
        for how in ("@spec.json", "-", text):
            self.prepare("--source-spec", how, input=text)
            with Target("vm.qcow2") as s:
                self.check_same(s.uri)
            migrate("abort", "vm.qcow2")

    def test_odd_size(self):
        """What is no whole sector is made one; what is behind the source is zeros."""
        with open("disk.raw", "r+b") as f:
            f.truncate(2 * MIB + 77)
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            with Target(target) as s:
                self.assertEqual(self.info(s.uri)["export-size"], 2 * MIB + 512)
            migrate("execute", target)
            migrate("commit", target)
            run("cp", "disk.raw", "right.raw")
            os.truncate("right.raw", 2 * MIB + 512)
            self.check_alone(target, "right.raw")
        self.prepare("-f", "raw", "--size", "4M", "disk.raw")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        os.truncate("disk.raw", 4 * MIB)
        self.check_alone("vm.qcow2", "disk.raw")

    def test_snapshots(self):
        """They come along, and are there at once."""
        self.make("a.qcow2")
        platter("snapshot", "-c", "first", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 5 0 3M")
        platter("snapshot", "-c", "second", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 6 1M 1M")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "right.raw")
        self.prepare("--snapshots", "a.qcow2")
        with Target("vm.qcow2") as s:
            self.check_same(s.uri, "right.raw")
            qemu_io(s.uri, "raw", "write -P 7 0 64k")
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.assertEqual(platter("digest", "vm.qcow2@first").stdout.split()[0],
                         platter("digest", "-f", "raw", "disk.raw").stdout.split()[0])
        self.assertEqual(platter("digest", "vm.qcow2@second").stdout.split()[0],
                         platter("digest", "a.qcow2@second").stdout.split()[0])
        qemu_img("check", "vm.qcow2")


class Guest(MigrateCase):
    def test_writes_win(self):
        """A guest that writes all the time while all is copied, slowly, and read."""
        for n, target in enumerate(TARGETS):
            self.prepare("-f", "raw", "disk.raw", target=target)
            run("cp", "disk.raw", "shadow.raw")
            with Target(target) as s, Background("execute", "--rate", "2M", target) as copy:
                seed = 100 * n
                while copy.process.poll() is None:
                    self.guest(s.uri, "shadow.raw", seed, 10)
                    seed += 1
                copy.end()
                self.check_same(s.uri, "shadow.raw")
            migrate("commit", target)
            self.check_alone(target, "shadow.raw")

    def test_nothing_falls_through(self):
        """What was zeroed or trimmed does not show the source again, however small or large."""
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            run("cp", "disk.raw", "shadow.raw")
            ranges = [(512, 512), (64 * KIB, 64 * KIB), (200 * KIB + 512, 400 * KIB), (2 * MIB, 2 * MIB)]
            with open("shadow.raw", "r+b") as f:
                for off, length in ranges:
                    f.seek(off)
                    f.write(bytes(length))
            with Target(target) as s:
                for off, length in ranges:
                    qemu_io(s.uri, "raw", f"write -P 9 {off} {length}", f"discard {off} {length}", f"write -z -u {off} {length}",
                            "flush")
                self.check_same(s.uri, "shadow.raw")
            with Target(target) as s:  # opened anew
                self.check_same(s.uri, "shadow.raw")
                migrate("execute", target)
                self.check_same(s.uri, "shadow.raw")
            migrate("commit", target)
            self.check_alone(target, "shadow.raw")

    def test_copy_on_read(self):
        """What was read once is not asked for again; and is, where that is not wanted."""
        for options, kept in (([], True), (["--no-copy-on-read"], False)):
            server = Faulty(content("disk.raw"))
            self.prepare("-f", "raw", server.url())
            with Target(*options, "vm.qcow2") as s:
                run("nbdcopy", s.uri, "copy.raw")
                self.assertEqual(sha256("copy.raw"), sha256("disk.raw"))
            left = status()["left"]
            self.assertEqual(left == 0, kept, left)
            server.stop()
            migrate("abort", "vm.qcow2")

    def test_first_byte(self):
        """A served http image answers its first read with at most 3 requests."""
        os.mkdir("www")
        for name in ("a.qcow2", "packed.qcow2", "stream.vmdk", "sparse.vmdk"):
            self.make(name)
            os.rename(name, f"www/{name}")
        server = self.started(Nginx())
        for name in os.listdir("www"):
            self.prepare(server.url(name))
            server.asked()
            with Target("vm.qcow2") as s:
                opened = len(server.asked())
                qemu_io(s.uri, "raw", "read 0 512")
                asked = server.asked()
                self.assertLessEqual(len(asked), 3, f"{name}: {asked}")
                self.assertLessEqual(opened, 6, name)
            migrate("abort", "vm.qcow2")

    def test_extents(self):
        """Clients are told of zeros that the source is known to have, and of data else."""
        self.make("a.qcow2")
        with Serve("-r", "a.qcow2") as s:
            there = json.loads(run("nbdinfo", "--map", "--json", s.uri).stdout)
        self.prepare("a.qcow2")
        with Target("vm.qcow2") as s:
            here = json.loads(run("nbdinfo", "--map", "--json", s.uri).stdout)
            self.assertEqual([(e["offset"], e["length"], e["type"] == 0) for e in here],
                             [(e["offset"], e["length"], e["type"] == 0) for e in there])
            self.assertEqual(self.info(s.uri)["block_preferred"] if "block_preferred" in self.info(s.uri) else 65536, 65536)


class Owners(MigrateCase):
    def test_execute_alone_and_again(self):
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            said = migrate("execute", "-p", target).stdout
            self.assertIn("(100.00/100%)", said)
            migrate("execute", target)
            told = status(target)
            self.assertEqual((told["state"], told["written"], told["owner"]), ("executed", False, None))
            migrate("commit", target)
            self.check_alone(target, "disk.raw")

    def test_interrupted(self):
        """By a signal, and killed: what was done is kept."""
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            for number in (signal.SIGINT, signal.SIGKILL):
                before = status(target)["copied"]
                with Background("execute", "--rate", "300K", target) as copy:
                    wait_until(lambda: status(target)["copied"] > before, "some is copied")
                    if number == signal.SIGKILL:
                        time.sleep(4)  # every two seconds it is made durable
                    copy.process.send_signal(number)
                    said = copy.end(-number)
                    if number == signal.SIGINT:
                        self.assertIn("is kept", said)
                told = status(target)
                self.assertNotEqual(told["state"], "executed")
                self.assertIsNone(told["owner"])
                self.assertGreater(told["copied"], before)
            migrate("execute", target)
            migrate("commit", target)
            self.check_alone(target, "disk.raw")

    def test_twice_at_once(self):
        self.prepare("-f", "raw", "disk.raw")
        with Target("vm.qcow2") as s, Background("execute", "--rate", "300K", "vm.qcow2") as copy:
            wait_for_state("executing")
            told = status()
            self.assertEqual(told["owner"], s.server())
            self.assertIn("already", migrate("execute", "vm.qcow2", code=1).stderr)
            migrate("commit", "vm.qcow2", code=NOT_EXECUTED)
            migrate("abort", "vm.qcow2", code=1)
            copy.process.send_signal(signal.SIGTERM)
            copy.end(-signal.SIGTERM)
            wait_for_state("prepared")
            with Background("execute", "--rate", "300K", "vm.qcow2") as killed:
                wait_for_state("executing")
                killed.process.kill()
                wait_for_state("prepared")
            self.check_same(s.uri)
            migrate("execute", "vm.qcow2")

    def test_server_comes_later(self):
        """A copy that runs alone gives way to a server, and goes on in it; and alone again behind it."""
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            with Background("execute", "--rate", "1M", target) as copy:
                wait_for_state("executing", target)
                self.assertEqual(status(target)["owner"], copy.process.pid)
                with Target(target) as s:
                    self.assertEqual(status(target)["owner"], s.server())
                    wait_for_state("executing", target)
                    self.check_same(s.uri)
                copy.end()
            self.assertEqual(status(target)["state"], "executed")
            migrate("commit", target)
            self.check_alone(target, "disk.raw")

    def test_inside(self):
        self.prepare("-f", "raw", "disk.raw")
        with Target("--execute", "--rate", "300K", "vm.qcow2") as s:
            wait_for_state("executing")
            self.assertIn("already", migrate("execute", "vm.qcow2", code=1).stderr)
            self.check_same(s.uri)
        told = status()
        self.assertNotEqual(told["state"], "executed")
        with Target("--execute", "vm.qcow2") as s:
            wait_for_state("executed")
            migrate("commit", "vm.qcow2")
            qemu_io(s.uri, "raw", "write -P 3 0 512")
        with open("disk.raw", "r+b") as f:
            f.write(b"\3" * 512)
        self.check_alone("vm.qcow2", "disk.raw")

    def test_server_killed(self):
        """Nothing that was flushed is lost, and no socket of a dead process is in the way."""
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            run("cp", "disk.raw", "shadow.raw")
            for n in range(3):
                with Target("--execute", "--rate", "300K", target, code=1) as s:
                    self.guest(s.uri, "shadow.raw", n, 20)
                    qemu_io(s.uri, "raw", "flush")
                    os.kill(s.server(), signal.SIGKILL)
                    s.process.wait(30)
                self.assertIsNone(status(target)["owner"])
            with Target(target) as s:
                self.check_same(s.uri, "shadow.raw")
            migrate("execute", target)
            migrate("commit", target)
            self.check_alone(target, "shadow.raw")

    def test_plugin(self):
        """nbdkit by itself: what it is told, and what does not go together."""
        self.prepare("-f", "raw", "disk.raw")
        server = nbdkit(PLUGIN, "vm.qcow2", "migration=true", "execute=true", "rate=100M")
        self.check_same(server.uri)
        wait_for_state("executed")
        migrate("commit", "vm.qcow2")
        self.check_same(server.uri)
        run("nbdinfo", server.uri.replace("?", "other?"), code=1)
        server.stop()
        self.check_alone("vm.qcow2", "disk.raw")
        self.make("a.qcow2")
        for word, *wrong in (["is not being migrated", "migration=true"], ["prepared with", "migration=true", "format=raw"],
                             ["migration=true", "execute=true"], ["migration=true", "copy-on-read=false"]):
            done = run("nbdkit", "-f", "-U", "-", PLUGIN, "a.qcow2", *wrong, "--run", "true", code=1)
            self.assertIn(word, done.stderr)

    def test_second_server(self):
        self.prepare("-f", "raw", "disk.raw")
        with Target("vm.qcow2") as s:
            said = migrate("serve", "vm.qcow2", code=1).stderr
            self.assertIn("vm.qcow2", said)
            self.check_same(s.uri)

    def test_others_cannot(self):
        """The socket is for its user alone."""
        self.prepare("-f", "raw", "disk.raw")
        with Target("vm.qcow2"):
            self.assertEqual(os.stat("vm.qcow2.migration.sock").st_mode & 0o777, 0o600)
            self.assertEqual(os.stat("vm.qcow2.migration").st_mode & 0o777, 0o600)

    def test_long_name(self):
        """Longer than the address of a socket can be."""
        folder = "/".join("n" * 100 for _ in range(3))
        os.makedirs(folder)
        target = f"{folder}/{'t' * 200}"
        migrate("prepare", "-f", "raw", "disk.raw", target)
        with Target(target) as s:
            self.assertEqual(status(target)["owner"], s.server())
            migrate("execute", target)
            migrate("commit", target)
        qemu_img("compare", "-f", "raw", "-F", "qcow2", "disk.raw", target)
        self.assertEqual(os.listdir(folder), ["t" * 200])

    def refused_for_others(self):
        """Whether there is no room beside many that say nothing; they are let go of after a while."""
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for c in waiting:
            c.connect("vm.qcow2.migration.sock")
        done = migrate("commit", "vm.qcow2", code={1, 5})
        for c in waiting:
            c.close()
        return "try again" in done.stderr

    def test_hostile_requests(self):
        """What is no request is answered, or not, and harms nobody."""
        self.prepare("-f", "raw", "disk.raw")
        with Target("vm.qcow2") as s:
            for request in (b"", b"\n", b"{}\n", b"[]\n", b"{\"do\":\"sing\"}\n", b"x" * 100000, b"{" * 60000 + b"\n",
                            b'{"do":"execute","workers":-1}\n', b'{"do":"execute","rate":1e300}\n', b"\0\n"):
                with socket.socket(socket.AF_UNIX) as c:
                    c.connect("vm.qcow2.migration.sock")
                    try:
                        c.sendall(request)
                        c.shutdown(socket.SHUT_WR)
                        self.assertIn(b'"code"', c.recv(65536))
                    except (BrokenPipeError, ConnectionResetError):
                        pass
            self.assertTrue(any(self.refused_for_others() for _ in range(4)))
            wait_until(lambda: migrate("status", "vm.qcow2", code={0, 1}).returncode == 0, "there is room again")
            self.assertEqual(status()["owner"], s.server())
            self.check_same(s.uri)


class Ends(MigrateCase):
    def test_abort(self):
        for target in TARGETS:
            self.prepare("-f", "raw", "disk.raw", target=target)
            with Target(target) as s:
                self.check_same(s.uri)
                self.assertIn("vm.", migrate("abort", target, code=1).stderr)
            migrate("abort", target)
            self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])

    def test_abort_with_writes(self):
        self.make("a.qcow2")
        for target in TARGETS:
            run("cp", "disk.raw", "shadow.raw")
            self.prepare("a.qcow2", target=target)
            with Target("--execute", "--rate", "300K", "--no-copy-on-read", target) as s:
                self.guest(s.uri, "shadow.raw", 4)
            self.assertIn("keep", migrate("abort", target, code=1).stderr)
            migrate("abort", "--keep-writes", "w.qcow2", "--discard-writes", target, code=1)
            migrate("abort", "--keep-writes", "w.qcow2", target)
            self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])
            qemu_img("compare", "-f", "raw", "-F", "qcow2", "shadow.raw", "w.qcow2")
            told = json.loads(qemu_img("info", "--output=json", "w.qcow2").stdout)
            self.assertTrue(told["backing-filename"].endswith("a.qcow2"), told)
            os.unlink("w.qcow2")
            self.prepare("a.qcow2", target=target)
            with Target(target) as s:
                qemu_io(s.uri, "raw", "write -P 3 0 512")
            migrate("abort", target, code=1)
            migrate("execute", target)
            self.assertIn("commit it", migrate("abort", "--keep-writes", "w.qcow2", target, code=1).stderr)
            migrate("abort", "--discard-writes", target)
            self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])

    def test_abort_keeps_no_more(self):
        """What was only copied is not kept beside the source that has it."""
        self.make("a.qcow2")
        for target in TARGETS:
            self.prepare("a.qcow2", target=target)
            with Target(target) as s:
                self.check_same(s.uri)
                qemu_io(s.uri, "raw", "write -P 3 1M 512")
            migrate("abort", "--keep-writes", "w.qcow2", target)
            parts = json.loads(qemu_img("map", "--output=json", "w.qcow2").stdout)
            self.assertEqual(sum(p["length"] for p in parts if p["depth"] == 0), 64 * KIB)
            os.unlink("w.qcow2")

    def test_abort_without_source(self):
        """What was written is kept over a source that is away, and shows with it when it is back."""
        self.make("a.qcow2")
        for target in TARGETS:
            run("cp", "disk.raw", "shadow.raw")
            self.prepare("a.qcow2", target=target)
            with Target(target) as s:
                self.guest(s.uri, "shadow.raw", 4)
            os.rename("a.qcow2", "away.qcow2")
            migrate("abort", "--keep-writes", "w.qcow2", target)
            os.rename("away.qcow2", "a.qcow2")
            self.assertEqual([n for n in os.listdir(".") if n.startswith("vm.")], [])
            qemu_img("check", "-q", "w.qcow2")
            qemu_img("compare", "-f", "raw", "-F", "qcow2", "shadow.raw", "w.qcow2")
            os.unlink("w.qcow2")

    def test_source_changed(self):
        """By its time, by another file in its place: nothing is read from it any more."""
        def touch():
            os.utime("disk.raw", (1, 1))

        def replace():
            run("cp", "disk.raw", "other.raw")
            os.rename("other.raw", "disk.raw")

        def grow():
            os.truncate("disk.raw", SIZE + MIB)

        for change in (touch, replace, grow):
            for target in TARGETS:
                self.prepare("-f", "raw", "disk.raw", target=target)
                change()
                said = migrate("execute", target, code=CHANGED).stderr
                self.assertIn("disk.raw", said)
                migrate("commit", target, code=NOT_EXECUTED)
                migrate("abort", target)
                make_content("disk.raw", SIZE, 7)

    def test_source_changes_meanwhile(self):
        for target in TARGETS:
            make_content("disk.raw", SIZE, 7)
            self.prepare("-f", "raw", "disk.raw", target=target)
            with Target(target) as s, Background("execute", "--rate", "300K", target) as copy:
                wait_for_state("executing", target)
                os.utime("disk.raw", (1, 1))
                self.assertIn("disk.raw", copy.end(CHANGED))
                qemu_io(s.uri, "raw", "write -P 3 0 64K", "read -P 3 0 64K")
                self.assertIn("disk.raw", status(target)["error"])
            migrate("abort", "--discard-writes", target)

    def test_moved(self):
        """The same source by another name goes on; another one is refused."""
        self.make("a.qcow2")
        self.prepare("a.qcow2")
        os.mkdir("there")
        os.rename("a.qcow2", "there/a.qcow2")
        self.assertNotEqual(migrate("execute", "vm.qcow2", code=range(1, 7)).returncode, 0)
        run("cp", "there/a.qcow2", "b.qcow2")
        migrate("execute", "--source", "b.qcow2", "vm.qcow2", code=CHANGED)
        with Target("--source", "there/a.qcow2", "vm.qcow2"):
            pass
        with Target("vm.qcow2") as s:  # that is its name from now on
            self.check_same(s.uri)
        migrate("execute", "--source", "there/a.qcow2", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")


class Faults(MigrateCase):
    def test_gone_and_back(self):
        """Of a source that went away only what is missing is missing."""
        port = free_port()

        def serve():
            return nbdkit("file", "disk.raw", options=["-r"], port=port, scheme="nbd")
        for target in TARGETS:
            server = serve()
            self.prepare("-f", "raw", server.uri, target=target)
            run("cp", "disk.raw", "shadow.raw")
            with Target(target) as s:
                qemu_io(s.uri, "raw", "read 0 1M", "write -P 5 2M 1M")
                with open("shadow.raw", "r+b") as f:
                    f.seek(2 * MIB)
                    f.write(b"\5" * MIB)
                server.kill()
                self.assertIn("Input/output error",
                              run("qemu-io", "-f", "raw", "-c", "read 4M 1M", s.uri, code={0, 1}).stdout)
                qemu_io(s.uri, "raw", "read -P 5 2M 1M", "write -P 6 3M 1M", "read -P 6 3M 1M", "read 0 1M", "flush")
                with open("shadow.raw", "r+b") as f:
                    f.seek(3 * MIB)
                    f.write(b"\6" * MIB)
                bad = self.read_all(s.uri, "shadow.raw")
                self.assertIn(4 * MIB, bad)
                self.assertFalse([off for off in bad if off < MIB or 2 * MIB <= off < 4 * MIB])
                migrate("execute", target, code=UNREADABLE)
                told = status(target)
                self.assertGreater(told["failed-reads"], 0)
                self.assertGreaterEqual(told["missing-ranges"], 1)
                missing = [(r["start"], r["start"] + r["length"]) for r in told["missing"]]
                self.assertTrue(any(a <= 4 * MIB < b for a, b in missing), missing)
                self.assertFalse(any(a < 4 * MIB and 2 * MIB < b for a, b in missing), missing)
                self.assertIn("missing", migrate("status", target).stdout)
                migrate("commit", target, code=NOT_EXECUTED)
                server = serve()
                migrate("execute", target)
                self.assertEqual(self.read_all(s.uri, "shadow.raw"), [])
                migrate("commit", target)
            self.check_alone(target, "shadow.raw")
            server.stop()

    def test_not_there_when_opened(self):
        """The target is served without its source."""
        server = nbdkit("file", "disk.raw", options=["-r"])
        self.prepare("-f", "raw", server.uri)
        with Target("vm.qcow2") as s:
            qemu_io(s.uri, "raw", "write -P 5 1M 1M")
        server.stop()
        with Target("vm.qcow2") as s:
            qemu_io(s.uri, "raw", "read -P 5 1M 1M", "write -P 6 2M 1M", "flush", "read -P 6 2M 1M")
            self.assertIn(4 * MIB, self.read_all(s.uri, self.written("disk.raw", (5, MIB), (6, 2 * MIB))))
            self.assertIn(server.uri, migrate("execute", "vm.qcow2", code=1).stderr)
            self.assertIsNotNone(status()["error"])

    def written(self, raw, *patterns):
        run("cp", raw, "written.raw")
        with open("written.raw", "r+b") as f:
            for pattern, off in patterns:
                f.seek(off)
                f.write(bytes([pattern]) * MIB)
        return "written.raw"

    def test_new_etag(self):
        right = content("disk.raw")
        server = Faulty(right)
        self.prepare("-f", "raw", "--place", QUICK, server.url())
        with Target("vm.qcow2") as s:
            qemu_io(s.uri, "raw", "read 0 64k")
            server.content, server.etag = bytes(SIZE), '"another"'
            migrate("execute", "vm.qcow2", code=CHANGED)
            self.assertIn(4 * MIB, self.read_all(s.uri))
        migrate("execute", "vm.qcow2", code=CHANGED)
        migrate("commit", "vm.qcow2", code=NOT_EXECUTED)
        migrate("abort", "vm.qcow2")
        server.stop()

    def faulty(self, seed, rate):
        rng = random.Random(seed)

        def plan(_n, _first, _last):
            if not plan.on or rng.random() > rate:
                return None
            return rng.choice(["drop", ("truncate", rng.randrange(70000)), ("stall", rng.randrange(70000)),
                               ("status", "503 Service Unavailable", {}), ("status", "500 Broken", {}), "more",
                               ("short", 1 + rng.randrange(60000)), ("garbage", b"no server\r\n\r\n"), "drop"])
        plan.on = False
        return plan

    def test_proxy(self):
        """Between a faulty server and its target: right bytes, or an error, and never a hang."""
        right = content("disk.raw")
        for seed, rate in ((1, 0.2), (2, 0.5), (3, 0.95)):
            plan = self.faulty(seed, rate)
            server = Faulty(right, plan)
            self.prepare("-f", "raw", "--place", QUICK, server.url())
            run("cp", "disk.raw", "shadow.raw")
            plan.on = True
            with Target("vm.qcow2") as s:
                for off in (512, MIB, 5 * MIB):
                    done = run("qemu-io", "-f", "raw", "-c", f"write -P 7 {off} 512", s.uri, code={0, 1})
                    if "wrote 512/512" in done.stdout:
                        with open("shadow.raw", "r+b") as f:
                            f.seek(off)
                            f.write(b"\7" * 512)
                self.read_all(s.uri, "shadow.raw")
                done = migrate("execute", "vm.qcow2", code={0, UNREADABLE})
                told = status()
                self.assertEqual(told["state"] == "executed", done.returncode == 0, told)
                self.assertEqual(told["missing"] == [], done.returncode == 0, told)
                plan.on = False
                migrate("execute", "vm.qcow2")
                self.assertEqual(self.read_all(s.uri, "shadow.raw"), [])
            migrate("commit", "vm.qcow2")
            self.check_alone("vm.qcow2", "shadow.raw")
            server.stop()

    def test_other_bytes(self):
        """A server that answers with another version all of a sudden."""
        right = content("disk.raw")
        for after in (2, 5, 9):
            server = Faulty(right)
            self.prepare("-f", "raw", "--place", QUICK, server.url())
            begun = len(server.requests)
            server.plan = lambda n, first, last, b=begun, a=after: ("change", bytes(SIZE), '"other"') if n == b + a else None
            with Target("vm.qcow2") as s:
                self.read_all(s.uri)
                done = migrate("execute", "vm.qcow2", code={0, CHANGED})
                self.assertEqual(self.read_all(s.uri) == [], done.returncode == 0)
            migrate("abort", "vm.qcow2")
            server.stop()


if __name__ == "__main__":
    main()
