# SPDX-License-Identifier: MIT
"""Migrations whose processes are killed, again and again, at any moment, while a guest works on the disk
and flushes: no flushed write is lost, no byte is one that was never there, and work that was done and
flushed is not done again.

A round is a life of the server, or of a copy without one. Usage: migrate_kill.py [Chain|Nbd|Http]; SEED
and ROUNDS in the environment are for those who look for more.
"""
import json
import os
import random
import re
import select
import signal
import subprocess
import time

import nbd

from nbd_servers import nbdkit
from peers import KIB, MIB, PLATTER, Failed, add_case, main, make_content, platter, qemu_img, qemu_io
from serve import Serve, ServeCase, is_there, wait_until
from web_servers import Faulty

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "34"))  # of each kind of target and source
SIZE = 8 * MIB + 512
BLOCK, CLUSTER = 512, 64 * KIB
DEPTH, CONNECTIONS = 3, 2
LENGTHS = [512, 4 * KIB, 4 * KIB, 20 * KIB, 64 * KIB, 150 * KIB]
NOISE = random.Random(1).randbytes(2 * MIB)
AHEAD = 2 * MIB  # that is read ahead of what is asked for, from a web server
TARGETS = {"vm.qcow2": "qcow2", "vm.raw": "raw"}


def clusters(at, length):
    """That lie in a range as a whole; the last one of the disk is short."""
    end = at + length
    return range(-(-at // CLUSTER), (end + CLUSTER - 1 if end == SIZE else end) // CLUSTER)


class Model:
    """What each block may hold: what was flushed, or anything written since."""

    def __init__(self, source):
        self.flushed = bytearray(source)
        self.now = bytearray(source)
        self.since = {}  # block: what was written, or is being written

    def begin(self, at, data):
        for b in range(at, at + len(data), BLOCK):
            self.since.setdefault(b, set()).add(bytes(data[b - at:b - at + BLOCK]))

    def end(self, at, data, durable=False):
        self.now[at:at + len(data)] = data
        if durable:
            self.keep(range(at, at + len(data), BLOCK))

    def keep(self, blocks):
        for b in list(blocks):
            self.flushed[b:b + BLOCK] = self.now[b:b + BLOCK]
            self.since.pop(b, None)

    def flush(self):
        self.keep(self.since)

    def settle(self, at, got):
        """After a kill: this is there. What it may be it is from now on."""
        length = len(got)
        if got == self.flushed[at:at + len(got)] == self.now[at:at + len(got)]:
            got = b""
        for b in range(at, at + len(got), BLOCK):
            piece, right = got[b - at:b - at + BLOCK], self.flushed[b:b + BLOCK]
            if piece != right and piece not in self.since.get(b, ()):
                raise Failed(f"at {b}: neither what was flushed nor what was written since, of "
                             f"{len(self.since.get(b, ()))}: {piece[:32].hex()} instead of {right[:32].hex()}")
            self.now[b:b + BLOCK] = piece
        self.keep(b for b in list(self.since) if at <= b < at + length)


class Guest:
    """Some connections that ask for much at once."""

    def __init__(self, uri, model, rng):
        self.model, self.rng = model, rng
        self.busy = {}   # start: end of what is asked for
        self.wrong, self.later = [], []
        self.read = set()  # clusters that were read, or written, as a whole
        self.handles = [nbd.NBD() for _ in range(CONNECTIONS)]
        for h in self.handles:
            h.connect_uri(uri)

    def choose(self):
        n = self.rng.choice(LENGTHS)
        at = self.rng.randrange((SIZE - n) // BLOCK + 1) * BLOCK
        if self.rng.randrange(3) == 0:
            at, n = at // CLUSTER * CLUSTER, min(CLUSTER, SIZE - at // CLUSTER * CLUSTER)
        free = all(end <= at or at + n <= begin for begin, end in self.busy.items())
        return (at, n) if free else None

    def done(self, at, error, then):
        if error:
            self.wrong.append(f"at {at}: {os.strerror(error)}")
        else:
            self.later.append(then)
        del self.busy[at]
        return 1

    def ask_read(self, h, at, n, settled=False):
        self.busy[at] = at + n
        buffer = nbd.Buffer(n)
        h.aio_pread(buffer, at, lambda error: self.done(at, error, lambda: self.take(
            at, bytes(buffer.to_bytearray()), settled)))

    def take(self, at, got, settled):
        right = self.model.now[at:at + len(got)]
        if settled:  # of what was trimmed blocks are as they were, or zeros
            for b in range(0, len(got), BLOCK):
                piece = got[b:b + BLOCK]
                if piece != right[b:b + BLOCK] and any(piece):
                    self.wrong.append(f"neither zeros nor what was there at {at + b}")
            self.model.end(at, got)
        elif got != right:
            self.wrong.append(f"another thing than was written at {at}, of {len(got)}")
        self.read.update(clusters(at, len(got)))

    def ask_write(self, h, at, n):
        self.busy[at] = at + n
        start = self.rng.randrange(len(NOISE) - n)
        data, fua = NOISE[start:start + n], self.rng.randrange(10) == 0
        self.model.begin(at, data)
        buffer = nbd.Buffer.from_bytearray(bytearray(data))
        h.aio_pwrite(buffer, at, lambda error, _keep=buffer: self.done(at, error, lambda: self.written(at, data, fua)),
                     nbd.CMD_FLAG_FUA if fua else 0)

    def written(self, at, data, fua=False):
        self.model.end(at, data, fua)
        self.read.update(clusters(at, len(data)))

    def ask_zero(self, h, at, n):
        self.busy[at] = at + n
        self.model.begin(at, bytes(n))
        h.aio_zero(n, at, lambda error: self.done(at, error, lambda: self.written(at, bytes(n))),
                   nbd.CMD_FLAG_NO_HOLE * self.rng.randrange(2))

    def ask_trim(self, h, at, n):
        self.busy[at] = at + n
        self.model.begin(at, bytes(n))
        h.aio_trim(n, at, lambda error: self.done(at, error, lambda: self.ask_read(h, at, n, True)))

    def ask(self):
        place = self.choose()
        if place:
            verb = self.rng.choice([self.ask_read] * 3 + [self.ask_write] * 4 + [self.ask_zero, self.ask_trim])
            verb(self.rng.choice(self.handles), *place)

    def step(self, patience):
        """What has come in within so many seconds."""
        poll, fds = select.poll(), {}
        for h in self.handles:
            direction = h.aio_get_direction()
            fds[h.aio_get_fd()] = h
            poll.register(h.aio_get_fd(), select.POLLIN * bool(direction & nbd.AIO_DIRECTION_READ) |
                          select.POLLOUT * bool(direction & nbd.AIO_DIRECTION_WRITE))
        for fd, events in poll.poll(patience * 1000):
            direction = fds[fd].aio_get_direction()
            if events & select.POLLIN and direction & nbd.AIO_DIRECTION_READ:
                fds[fd].aio_notify_read()
            elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                fds[fd].aio_notify_write()
        while self.later:
            self.later.pop(0)()
        if self.wrong:
            raise Failed(str(self.wrong[:5]))

    def work(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            while len(self.busy) < DEPTH * CONNECTIONS and self.rng.randrange(8):
                self.ask()
            self.step(min(left, 0.01))

    def drain(self):
        until = time.monotonic() + 30
        while self.busy:
            self.step(1)
            if time.monotonic() > until:
                raise Failed(f"no answer: {self.busy}")

    def flush(self):
        """All that any connection wrote is durable then."""
        self.drain()
        self.rng.choice(self.handles).flush()
        self.model.flush()

    def verify(self, ranges):
        """What is there after a kill."""
        for at, n in ranges:
            self.model.settle(at, bytes(self.handles[0].pread(n, at)))


class Target(Serve):
    def __init__(self, *argv, code=0):
        super().__init__(*argv, code=code)
        self.argv = [PLATTER, "migrate", "serve", *argv]


class Asked:
    """What a server in front of the source was asked for: the log of nbdkit."""

    def __init__(self, log):
        self.log = log
        self.seen = 0
        self.may_be_asked = set()  # clusters, at any time
        self.around = 0            # bytes that may be asked for beside what is missing

    def lines(self):
        with open(self.log) as f:
            for offset, count in re.findall(r" Read .*offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+) ", f.read()):
                yield int(offset, 0), int(offset, 0) + int(count, 0) - 1

    def news(self):
        lines = list(self.lines())
        new, self.seen = lines[self.seen:], len(lines)
        return new


class AskedWeb(Asked):
    """That of a web server, which is asked for its first bytes to see whether it is the same, and for more
    than is wanted where that comes in a row."""

    def __init__(self, server):
        super().__init__(None)
        self.server = server
        self.may_be_asked = {0}
        self.around = AHEAD

    def lines(self):
        return [(first, last) for first, last, _ in list(self.server.requests)]


class Story:
    """One migration, from prepare to commit."""

    def __init__(self, case, target, source, model, seed, asked=None):
        self.case, self.target, self.model, self.asked = case, target, model, asked
        self.rng = random.Random(seed)
        self.left = SIZE   # bytes to copy, at the last flush
        self.kept = set()  # clusters that the target had flushed before this round began
        self.new = set()   # ... and since
        platter("migrate", "prepare", "-O", TARGETS[target], *source, target)

    def status(self):
        return json.loads(platter("migrate", "status", "--output=json", self.target).stdout)

    # ---- what is not done again ------------------------------------------------------------------

    def note_flush(self, guest):
        """The work that was done when the flush began stays."""
        left, read = self.status()["left"], set(guest.read)
        guest.flush()
        self.left = min(self.left, left)
        self.new |= read

    def look_into_target(self):
        """What it has by the peer's account, while nobody has it open."""
        if TARGETS[self.target] != "qcow2":
            return
        alone = json.dumps({"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": self.target}})
        for e in json.loads(qemu_img("map", "-U", "--output=json", f"json:{alone}").stdout):
            if e["present"]:
                self.new.update(clusters(e["start"], e["length"]))

    def look_at_requests(self):
        """In this round nothing was asked for that the target had before."""
        if not self.asked:
            return
        around = self.asked.around // CLUSTER
        near = {c + d for c in set(clusters(0, SIZE)) - self.kept for d in range(-around, around + 1)}
        for first, last in self.asked.news():
            again = set(range(first // CLUSTER, last // CLUSTER + 1)) & self.kept - self.asked.may_be_asked - near
            self.case.assertFalse(again, f"asked again by {first}-{last}")

    def resumed(self):
        """What is left to do."""
        told = self.status()
        self.case.assertIsNotNone(told["left"], told)
        self.case.assertLessEqual(told["left"], self.left, "left")
        return told["left"]

    # ---- lives -----------------------------------------------------------------------------------

    def rate(self):
        """Slow enough for many rounds, and yet so fast that something is copied in each."""
        return str(self.rng.choice([4 * MIB, 8 * MIB, 16 * MIB]))

    def background(self, verb, *options):
        with open("beside.log", "w") as log:
            return subprocess.Popen([PLATTER, "migrate", verb, *options, self.target], stdout=log, stderr=log)

    def end_of(self, process, *codes):
        code = process.wait(60)
        with open("beside.log", errors="replace") as f:
            said = f.read()
        if code not in codes or "Sanitizer" in said:
            raise Failed(f"{process.args} ended with {code}: {said}")

    def alone(self):
        """A copy without a server."""
        process = self.background("execute", "-r", self.rate())
        time.sleep(self.rng.random() * 0.15)
        process.kill()
        self.end_of(process, -9, 0)

    def all_of_it(self):
        return [(at, min(256 * KIB, SIZE - at)) for at in range(0, SIZE, 256 * KIB)]

    def some_of_it(self):
        """What was written and not flushed, and a little of the rest."""
        ranges = []
        for b in sorted(self.model.since):
            if ranges and sum(ranges[-1]) == b:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + BLOCK)
            else:
                ranges.append((b, BLOCK))
        return ranges + [(self.rng.randrange(SIZE // BLOCK) * BLOCK, BLOCK) for _ in range(8)]

    def life(self):
        """A server with a guest, whose end is sudden."""
        inside, keeps = self.rng.randrange(2), self.rng.randrange(2)
        options = ["--execute", "--rate", self.rate()] if inside else []
        end = self.rng.choice(["server"] * 7 + ["both"] * 2 + ["front", "signal"])
        copier = None
        with Target(*options, *([] if keeps else ["--no-copy-on-read"]), self.target,
                    code={"front": -9, "both": -9, "signal": 0}.get(end, 1)) as s:
            server = s.server()
            guest = Guest(s.uri, self.model, self.rng)
            guest.verify(self.some_of_it() if keeps else self.all_of_it())
            guest.read = set() if not keeps else guest.read
            for _ in range(self.rng.randrange(4)):
                if not inside and not copier and self.rng.randrange(2):
                    copier = self.background("execute", "-r", self.rate())
                guest.work(self.rng.random() * 0.05)
                if copier and self.rng.randrange(3) == 0:
                    copier.send_signal(self.rng.choice([signal.SIGKILL, signal.SIGTERM]))
                    self.end_of(copier, -9, 0, 1, 128 + signal.SIGTERM, -signal.SIGTERM)
                    copier = None
                if self.rng.randrange(2):
                    self.note_flush(guest) if keeps else guest.flush()
            guest.work(self.rng.random() * 0.04)
            if end in ("front", "signal"):  # nbdkit 1.32 ends badly where nobody takes its answers
                guest.drain()
            self.finish(s, server, end)
        if copier:
            self.end_of(copier, 0, 1, -9)

    def finish(self, s, server, end):
        if end in ("server", "both"):
            os.kill(server, signal.SIGKILL)
        if end in ("front", "both"):
            s.process.kill()
        if end == "signal":
            s.process.terminate()
        s.process.wait(60)
        wait_until(lambda: not is_there(server), f"the end of the server, by {end}")

    def run(self, rounds):
        """As many rounds as there is something to copy, and two; how many there were."""
        behind = 0
        for number in range(rounds):
            try:
                self.alone() if self.rng.randrange(6) == 0 else self.life()
                behind += self.resumed() == 0
                self.look_at_requests()
                self.look_into_target()
                self.kept |= self.new
            except Exception as e:
                raise Failed(f"round {number}: {e}") from e
            if behind == 2:
                break
        self.end()
        return number + 1

    def end(self):
        """All the way, with a guest that goes on; and kills that come while the link is cut."""
        with Target(self.target) as s:
            copier = self.background("execute")
            guest = Guest(s.uri, self.model, self.rng)
            guest.verify(self.all_of_it())
            guest.work(0.1)
            self.end_of(copier, 0)
            self.look_at_requests()
            self.case.assertEqual(self.status()["state"], "executed")
            guest.work(0.05)
            guest.flush()
            del guest
        patience = 0.02
        while os.path.exists(f"{self.target}.migration"):
            process = self.background("commit")
            time.sleep(self.rng.random() * patience)
            patience *= 1.3  # all is slower where much else is done
            process.kill()
            self.end_of(process, 0, -9, 1)
        with open("model.raw", "wb") as f:
            f.write(self.model.now)
        if TARGETS[self.target] == "qcow2":  # what is left of kills is room, at worst
            qemu_img("check", "-q", self.target, code={0, 3})
            platter("check", "-q", "-r", "leaks", self.target, code={0, 3})
        self.case.check_alone(self.target, TARGETS[self.target])


class KillCase(ServeCase):
    def setUp(self):
        super().setUp()
        make_content("disk.raw", SIZE, 5)
        with open("disk.raw", "rb") as f:
            self.content = f.read()

    def check_alone(self, target, fmt):
        self.check_written(target, fmt, "model.raw")
        platter("compare", "-q", "-f", fmt, "-F", "raw", target, "model.raw")
        if fmt == "qcow2":
            platter("check", "-q", target)
        # A commit that was killed at its very end leaves the socket that it was reached by.
        self.assertLessEqual({n for n in os.listdir(".") if n.startswith("vm.")}, {target, f"{target}.migration.sock"})


    def stories(self, target, source, content, asked=None):
        """One migration after the other, until there were enough rounds."""
        done = stories = 0
        while done < ROUNDS:
            story = Story(self, target, source, Model(content), SEED * 1000 + stories, asked)
            done += story.run(ROUNDS - done)
            stories += 1
            os.unlink(target)


class Chain(KillCase):
    def migrate(self, target):
        """From a qcow2 over another one."""
        platter("convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw", "base.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        qemu_io("top.qcow2", "qcow2", "write -P 5 1M 100k", "write -z 2M 300k", "write -P 6 4M 1M")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "right.raw")
        with open("right.raw", "rb") as f:
            self.stories(target, ["top.qcow2"], f.read())


class Nbd(KillCase):
    def migrate(self, target):
        """From a server that tells what it was asked for, and takes its time, so that much happens meanwhile."""
        log = f"{self.dir}/asked.log"
        server = nbdkit("file", "disk.raw", f"logfile={log}", "delay-read=4ms", filters=["log", "delay"],
                        options=["-r", "-t", "1"])  # nbdkit 1.32 ends where two threads answer one that is gone
        self.addCleanup(server.stop)
        self.stories(target, ["-f", "raw", server.uri], self.content, Asked(log))


class Http(KillCase):
    def migrate(self, target):
        server = Faulty(self.content)
        self.addCleanup(server.stop)
        self.stories(target, ["-f", "raw", server.url()], self.content, AskedWeb(server))


for name in TARGETS:
    add_case(Chain, name, Chain.migrate, name)
    add_case(Nbd, name, Nbd.migrate, name)
    add_case(Http, name, Http.migrate, name)


if __name__ == "__main__":
    main()
