# SPDX-License-Identifier: MIT
"""Served disks under load: random requests of several connections at once, each with several under way,
beside a model in memory; and fio, which verifies what it wrote.

Every connection owns ranges of its own, among them many that share a cluster with those of others, and all
read what nobody writes.
"""
import os
import random
import select

import nbd

from peers import KIB, MIB, add_case, main, make_content, platter, qemu_img, run
from serve import Serve, ServeCase

CLIENTS, DEPTH = 4, 8
STRIPE = MIB + 512         # of each client, in one piece
PIECE = 20 * KIB + 512     # of each in turn
PIECES = 12
SHARED = 2 * MIB
SIZE = CLIENTS * (STRIPE + PIECES * PIECE) + SHARED
NOISE = random.Random(1).randbytes(2 * MIB)
LENGTHS = [1, 511, 512, 513, 4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 200 * KIB]


class Client:
    """One connection, and what its own ranges must hold."""

    def __init__(self, number, uri, model, seed):
        self.rng = random.Random(seed)
        self.model = model
        self.own = [(number * STRIPE, STRIPE)] + [
            (CLIENTS * STRIPE + (i * CLIENTS + number) * PIECE, PIECE) for i in range(PIECES)]
        self.busy = {}  # start: end of what is asked for
        self.wrong = []
        self.later = []  # what an answer leads to, for an answer itself may ask for nothing
        self.h = nbd.NBD()
        self.h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        self.h.connect_uri(uri)

    def choose(self):
        """A range of ours that nothing is under way for, or None."""
        start, length = self.own[0] if self.rng.randrange(2) else self.rng.choice(self.own[1:])
        n = min(length, self.rng.choice(LENGTHS))
        at = start + self.rng.randrange(length - n + 1)
        if self.rng.randrange(3):
            at = max(start, at // 512 * 512)
        free = all(end <= at or at + n <= begin for begin, end in self.busy.items())
        return (at, n) if free else None

    def done(self, at, what, error, then=None):
        if error or at not in self.busy:
            self.wrong.append(f"{what} at {at}: {error}")
        self.busy.pop(at, None)
        self.later += [then] if then else []
        return 1

    def check(self, at, got, what):
        right = self.model[at:at + len(got)]
        if got != right:
            where = next(i for i, (a, b) in enumerate(zip(got, right)) if a != b)
            self.wrong.append(f"{what} of {len(got)} at {at}: differs at {at + where}")

    def settle(self, at, got):
        """After a trim: whole sectors are as they were, or zeros."""
        for start in range(at // 512 * 512, at + len(got), 512):
            a, b = max(at, start), min(start + 512, at + len(got))
            now = got[a - at:b - at]
            if now != self.model[a:b] and any(now):
                self.wrong.append(f"trim left neither zeros nor what was there at {a}")
            self.model[a:b] = now

    def read(self, at, n, use, what):
        self.busy[at] = at + n
        buffer = nbd.Buffer(n)
        self.h.aio_pread(buffer, at, lambda error: self.done(
            at, what, error, lambda: use(at, bytes(buffer.to_bytearray()))))

    def write(self, at, n):
        self.busy[at] = at + n
        start = self.rng.randrange(len(NOISE) - n)
        self.model[at:at + n] = NOISE[start:start + n]
        flags = nbd.CMD_FLAG_FUA * (self.rng.randrange(12) == 0)
        buffer = nbd.Buffer.from_bytearray(bytearray(NOISE[start:start + n]))
        self.h.aio_pwrite(buffer, at, lambda error, _keep=buffer: self.done(at, "write", error), flags)

    def zero(self, at, n):
        self.busy[at] = at + n
        self.model[at:at + n] = bytes(n)
        flags = nbd.CMD_FLAG_NO_HOLE * self.rng.randrange(2)
        self.h.aio_zero(n, at, lambda error: self.done(at, "zero", error), flags)

    def trim(self, at, n):
        self.busy[at] = at + n
        self.h.aio_trim(n, at, lambda error: self.done(
            at, "trim", error, lambda: self.read(at, n, self.settle, "read after trim")))

    def ask(self):
        """One more request, if there is a place for it."""
        kind = self.rng.choice(["read"] * 5 + ["write"] * 6 + ["zero"] * 2 + ["trim", "shared", "flush"])
        if kind == "flush" and -1 not in self.busy:
            self.busy[-1] = -1
            self.h.aio_flush(lambda error: self.done(-1, "flush", error))
        elif kind in ("shared", "flush"):
            n = self.rng.choice(LENGTHS)
            at = SIZE - SHARED + self.rng.randrange(SHARED - n + 1)
            if at not in self.busy:
                self.read(at, n, lambda a, got: self.check(a, got, "read of shared"), "read")
        elif place := self.choose():
            if kind == "read":
                self.read(*place, lambda a, got: self.check(a, got, "read"), "read")
            else:
                getattr(self, kind)(*place)

    def step(self, events):
        direction = self.h.aio_get_direction()
        if events & select.POLLIN and direction & nbd.AIO_DIRECTION_READ:
            self.h.aio_notify_read()
        elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
            self.h.aio_notify_write()
        while self.later:
            self.later.pop(0)()

    def wants(self):
        direction = self.h.aio_get_direction()
        return select.POLLIN * bool(direction & nbd.AIO_DIRECTION_READ) | \
            select.POLLOUT * bool(direction & nbd.AIO_DIRECTION_WRITE)


def torment(clients, requests):
    """All clients ask at once until each has asked often enough; then all is answered."""
    left = {c: requests for c in clients}
    while any(left.values()) or any(c.busy for c in clients):
        for c in clients:
            while left[c] and len(c.busy) < DEPTH:
                left[c] -= 1
                c.ask()
        poll = select.poll()
        fds = {c.h.aio_get_fd(): c for c in clients}
        for fd, c in fds.items():
            poll.register(fd, c.wants())
        news = poll.poll(10000)
        if not news:
            raise AssertionError(f"nothing moves: {[c.busy for c in clients]}")
        for fd, events in news:
            fds[fd].step(events)
        for c in clients:
            if c.wrong:
                raise AssertionError(c.wrong[:5])


def over_backing():
    platter("convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "base.qcow2")
    platter("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", "base.qcow2", "-F", "qcow2", "image")


def converted(*options):
    return lambda: platter("convert", "-f", "raw", *options, "disk.raw", "image")


SHAPES = {
    "qcow2": ("qcow2", 3, converted("-O", "qcow2")),
    "qcow2-small": ("qcow2", 1, converted("-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64")),
    "qcow2-packed": ("qcow2", 1, converted("-c", "-O", "qcow2", "-o", "compression_type=zstd")),
    "qcow2-backing": ("qcow2", 2, over_backing),
    "qcow": ("qcow", 1, converted("-O", "qcow")),
    "vmdk": ("vmdk", 2, converted("-O", "vmdk")),
    "raw": ("raw", 1, converted("-O", "raw")),
}


class Random(ServeCase):
    pass


def together(self, seed, fmt, rounds, make):
    make_content("disk.raw", SIZE, seed)
    make()
    with open("disk.raw", "rb") as f:
        model = bytearray(f.read())
    with Serve("-f", fmt, "image") as s:
        clients = [Client(i, s.uri, model, seed * 100 + i) for i in range(CLIENTS)]
        torment(clients, rounds * 200)
        self.assertTrue(clients[0].h.pread(SIZE, 0) == model)
        for c in clients[1:]:
            c.h.shutdown()
        clients[0].h.flush()
    with open("model.raw", "wb") as f:
        f.write(model)
    qemu_img("compare", "-q", "-f", fmt, "-F", "raw", "image", "model.raw")
    platter("compare", "-q", "-f", fmt, "-F", "raw", "image", "model.raw")
    if fmt != "raw":
        platter("check", "-q", "image", code={0, 3} if fmt == "qcow" else 0)
    if fmt == "qcow2":
        qemu_img("check", "-q", "image")


for number, (shape, what) in enumerate(SHAPES.items()):
    add_case(Random, shape, together, number + 1, *what)


class Fio(ServeCase):
    def fio(self, uri, *options):
        done = run("fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--numjobs=3", "--group_reporting",
                   "--size=4M", "--offset_increment=5M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                   "--randseed=7", *options)
        self.assertNotIn("verify:", done.stdout + done.stderr)

    def test_verified(self):
        """Blocks of several sizes at random places, at depth, written, read back, and verified again later."""
        for fmt in ("qcow2", "vmdk"):
            platter("create", "-q", "-f", fmt, f"fio.{fmt}", 16 * MIB)
            with Serve(f"fio.{fmt}") as s:
                self.fio(s.uri, "--rw=randwrite", "--bsrange=512-64k", "--iodepth=8", "--norandommap=0",
                         "--fsync=50", "--blockalign=512")
                self.fio(s.uri, "--rw=randwrite", "--bs=4k", "--iodepth=16", "--verify_backlog=100")
                self.fio(s.uri, "--rw=write", "--bs=128k", "--iodepth=4", "--trim_percentage=0")
            with Serve(f"fio.{fmt}") as s:
                self.fio(s.uri, "--rw=write", "--bs=128k", "--verify_only=1")
            platter("check", "-q", f"fio.{fmt}")
        qemu_img("check", "-q", "fio.qcow2")


if __name__ == "__main__":
    main()
