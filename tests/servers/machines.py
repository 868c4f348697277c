# SPDX-License-Identifier: MIT
"""A real machine whose disk platter serves: from a web server, from S3, out of a backup and from Ceph.

What the guest writes is logged, so that it is known of each byte of a disk what it must be in the end.
"""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile

import gateway
import replay
from guest import Guest, logged, unchanged
from peers import MIB, PLATTER, Case, add_case, main, platter, qemu_img, run
from pool import POOL, export, names, remove, start, until
from serve import Serve, wrap_nbdkit
from web_servers import Nginx

MAKER = os.path.join(os.path.dirname(__file__), "../../tools/make-machine")
ROOT_START = 33 * MIB  # of the partition with the root file system
NOISE_SIZE = 12 * MIB
ROUNDS = 4  # of work
RATE = "3M"  # bytes a second at which a disk is copied at first: that would take two minutes
TARGETS = {"http": "qcow2", "s3": "qcow2", "vma": "raw", "rbd": "raw"}  # source: format of the target


def words(word, length):
    """What `yes WORD | head -c LENGTH` prints."""
    line = word.encode() + b"\n"
    return (line * (length // len(line) + 1))[:length]


class Moved(Serve):
    """The target of a migration, served."""

    def __init__(self, target):
        super().__init__()
        self.argv = [PLATTER, "migrate", "serve", target]


class Work:
    """What a guest does to its disk: new files, new bytes in an old one, and files that go. `digests`:
    what its files must be."""

    def __init__(self, guest):
        self.guest = guest
        self.digests = {}
        with open(Machines.shelf + "/noise1", "rb") as f:
            self.patched = bytearray(f.read())

    def round(self, number):
        """A file that is copied by way of memory, bytes here and there in another, and reads."""
        guest, new = self.guest, f"/srv/new{number}"
        said = guest.do(f"head -c {1500000 + number} /dev/urandom >/run/new && sha256sum /run/new && "
                        f"cp /run/new {new} && sync {new}")
        self.digests[new] = said[:64]
        for at in range(number * 40000, NOISE_SIZE - 100000, NOISE_SIZE // 7):
            piece = words(f"round {number} at {at}", 9000 + at % 1000)
            self.patched[at:at + len(piece)] = piece
            guest.do(f"yes 'round {number} at {at}' | head -c {len(piece)} | "
                     f"dd of=/srv/noise1 bs=64K seek={at} oflag=seek_bytes conv=notrunc status=none")
        guest.do(f"sync && echo 1 >/proc/sys/vm/drop_caches && cat /srv/noise{number} >/dev/null")

    def drop(self):
        """A file that was just written, and room that was never used: the disk is told."""
        self.guest.do("cp /srv/noise0 /srv/gone && sync && rm /srv/gone && sync && fstrim /")

    def end(self):
        """Files that come and go."""
        self.guest.do("rm /srv/text3 && cp /srv/noise2 /srv/copy && sync && fstrim /")
        self.digests["/srv/noise1"] = hashlib.sha256(self.patched).hexdigest()
        self.digests.update({path: digest for path, digest in Machines.digests.items()
                             if path not in ("/srv/noise1", "/srv/text3")})
        self.digests["/srv/copy"] = self.digests["/srv/noise2"]


class Machines(Case):
    """Four sources with the same disk in them, which are made once."""

    @classmethod
    def setUpClass(cls):
        cls.disk = subprocess.run([MAKER], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        cls.shelf = tempfile.mkdtemp(prefix="platter-machines-")
        cls.path = wrap_nbdkit(cls.shelf)
        start = os.getcwd()
        os.chdir(cls.shelf)
        os.mkdir("www")
        cls.nginx = Nginx()
        os.chdir(start)
        gateway.put(f"/{POOL}")
        cls.look_inside()

    @classmethod
    def look_inside(cls):
        """Digests of the files that are only there to be many, without a machine."""
        cls.digests = {}
        for name in (f"{kind}{number}" for kind in ("noise", "text") for number in range(4)):
            path = f"{cls.shelf}/{name}"
            run("/sbin/debugfs", "-R", f"dump /srv/{name} {path}", f"{cls.disk}?offset={ROOT_START}")
            cls.digests[f"/srv/{name}"] = run("sha256sum", path).stdout[:64]
            if name != "noise1":
                os.unlink(path)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.stop()
        os.environ["PATH"] = cls.path
        shutil.rmtree(cls.shelf)

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    # ---- sources, as they are named --------------------------------------------------------------

    def make(self, source):
        """A new source of a kind, with the disk in it, and what is needed to remove it."""
        raw = ["convert", "-t", "unsafe", "-f", "raw", self.disk]
        if source == "http":
            path = f"{self.shelf}/www/disk.qcow2"
            platter(*raw, "-c", "-O", "qcow2", path)
            return self.nginx.url("disk.qcow2"), lambda: os.unlink(path)
        if source == "s3":
            place = f"s3://{POOL}/disk.vmdk"
            platter(*raw, "-O", "vmdk", "-o", "subformat=streamOptimized", place)
            return place, lambda: gateway.delete(f"/{POOL}/disk.vmdk")
        if source == "vma":
            platter("archive", "create", "-q", "-t", "unsafe", "disk.vma", "-f", "raw", "-d",
                    f"drive-scsi0={self.disk}")
            return "disk.vma@drive-scsi0", lambda: os.unlink("disk.vma")
        platter(*raw, "-O", "qcow2", f"rbd:{POOL}/disk")
        return f"rbd:{POOL}/disk", lambda: remove("disk")

    # ---- checks ------------------------------------------------------------------------------------

    def check_disk(self, raw, log):
        """A disk is what it was, but for what the guest wrote: each sector of it."""
        run("cp", "--sparse=always", self.disk, "expected.raw")
        dropped, written = replay.replay(log, "expected.raw")
        self.assertGreater(written, ROUNDS * 1500000)
        self.assertEqual(replay.differences(raw, "expected.raw", dropped), [])
        os.unlink("expected.raw")
        run("/sbin/e2fsck", "-fn", f"{raw}?offset={ROOT_START}")

    def check_boots(self, place, fmt, digests):
        """The disk alone, in the hands of QEMU alone, has what the guest left there."""
        with Guest(unchanged(place, fmt)) as guest:
            self.assertEqual(guest.digests(*digests), digests)
            self.assertEqual(guest.do("ls /srv/text3", code=2).count("No such file"), 1)

    # ---- tests -------------------------------------------------------------------------------------

    def boots(self, place):
        """From what takes no writes; those of the guest go elsewhere."""
        with Serve("--read-only", place) as server, Guest(unchanged(server.uri)) as guest:
            self.assertEqual(guest.digests(*self.digests), self.digests)

    def status(self, target):
        return json.loads(platter("migrate", "status", "--output=json", target).stdout)

    def is_copying(self, target):
        status = self.status(target)
        self.assertEqual((status["state"], status["error"]), ("executing", None))
        self.assertGreater(status["left"], 0)

    def moves(self, source):
        """The disk gets a new home while a machine boots from it, writes to it, and goes on."""
        place, remove_source = self.make(source)
        self.boots(place)
        fmt = TARGETS[source]
        target = f"rbd:{POOL}/new" if source == "rbd" else f"new.{fmt}"
        platter("migrate", "prepare", "-O", fmt, place, target)
        with Moved(target) as server:
            copy = self.copy("--rate", RATE, target)
            until(lambda: self.status(target)["state"] == "executing", "the copy")
            with Guest(logged(server.uri, "log")) as guest:
                self.is_copying(target)
                work = Work(guest)
                work.round(0)
                work.drop()
                work.round(1)
                self.is_copying(target)
                self.interrupt(copy)
                self.assertEqual(self.status(target)["state"], "prepared")
                copy = self.copy(target)
                work.round(2)
                self.ended(copy)
                self.assertEqual(self.status(target)["state"], "executed")
                platter("migrate", "commit", target)
                remove_source()
                work.round(3)
                work.end()
                self.assertEqual(guest.digests(*work.digests), work.digests)
        self.check_alone(source, target, fmt, work)

    def copy(self, *argv):
        process = start("migrate", "execute", *argv)
        for clean in (process.stderr.close, process.wait, process.kill):
            self.addCleanup(clean)
        return process

    def interrupt(self, copy):
        copy.send_signal(signal.SIGINT)
        said = copy.communicate(timeout=60)[1]
        self.assertEqual((copy.returncode, "kept" in said), (-signal.SIGINT, True), said)

    def ended(self, copy):
        said = copy.communicate(timeout=120)[1]
        self.assertEqual((copy.returncode, said), (0, ""))

    def check_alone(self, source, target, fmt, work):
        """Nothing but the target is left, and it is what it must be; QEMU needs nobody's help with it."""
        self.assertEqual(sorted(os.listdir()), sorted({"log", "serve.log", target} - {f"rbd:{POOL}/new"}))
        raw = target
        if source == "rbd":
            self.assertEqual(names(), ["new"])
            raw = export("new", "new.raw")
        elif fmt == "qcow2":
            raw = "new.raw"
            self.assertNotIn("backing-filename", json.loads(qemu_img("info", "--output=json", target).stdout))
            qemu_img("check", target)
            qemu_img("convert", "-O", "raw", target, raw)
        self.check_disk(raw, "log")
        self.check_boots(target, fmt, work.digests)
        if source == "rbd":
            remove("new")

    def test_writes(self):
        """To a served image, without anything that is moved."""
        platter("convert", "-t", "unsafe", "-f", "raw", "-O", "qcow2", self.disk, "disk.qcow2")
        with Serve("disk.qcow2") as server:
            with Guest(logged(server.uri, "log")) as guest:
                work = Work(guest)
                for number in range(ROUNDS):
                    work.round(number)
                work.end()
                self.assertEqual(guest.digests(*work.digests), work.digests)
        qemu_img("check", "disk.qcow2")
        qemu_img("convert", "-O", "raw", "disk.qcow2", "disk.raw")
        self.check_disk("disk.raw", "log")
        self.check_boots("disk.qcow2", "qcow2", work.digests)


for kind in TARGETS:
    add_case(Machines, f"moves from {kind}", Machines.moves, kind)

if __name__ == "__main__":
    main()
