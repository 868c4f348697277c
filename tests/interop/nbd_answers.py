# SPDX-License-Identifier: MIT
"""What NBD servers answer that nbdkit and qemu-nbd never do: extents that are short, vast or contradict
one another, pieces of reads that are missing, errors with an offset, errors and then the end. A server of
our own gives them; what it keeps is real."""
import os
import socket
import struct
import threading
import time

from peers import KIB, MIB, Case, main, make_content, platter, sha256

SIZE = 4 * MIB
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
FUA = 1
HAS_FLAGS, READ_ONLY, CAN_FLUSH, CAN_FUA, CAN_TRIM, CAN_ZERO = 1, 2, 4, 8, 32, 64
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ESHUTDOWN = 1, 5, 22, 28, 75, 108
ALL = HAS_FLAGS | CAN_FLUSH | CAN_FUA | CAN_TRIM | CAN_ZERO


class Gone(Exception):
    """The client; or the server goes."""


class Connection:
    def __init__(self, server, s):
        self.server, self.s, self.structured = server, s, False

    def take(self, n):
        got = b""
        while len(got) < n:
            more = self.s.recv(n - len(got))
            if not more:
                raise Gone
            got += more
        return got

    def give(self, form, *values, data=b""):
        self.s.sendall(struct.pack(">" + form, *values) + data)

    def agree(self):
        """The handshake, until the export is chosen."""
        self.give("8s8sH", b"NBDMAGIC", b"IHAVEOPT", 3)
        self.take(4)
        while True:
            _, option, length = struct.unpack(">QII", self.take(16))
            self.take(length)
            if option == 8 and self.server.structured:
                self.structured = True
                self.reply(option, 1)
            elif option == 10 and self.structured:
                self.reply(option, 4, struct.pack(">I", 7) + b"base:allocation")
                self.reply(option, 1)
            elif option == 7:
                self.reply(option, 3, struct.pack(">HQH", 0, self.server.size, self.server.flags))
                if self.server.blocks:
                    self.reply(option, 3, struct.pack(">HIII", 3, *self.server.blocks))
                self.reply(option, 1)
                return
            else:
                self.reply(option, 0x80000001)

    def reply(self, option, kind, data=b""):
        self.give("QIII", 0x3e889045565a9, option, kind, len(data), data=data)

    def chunk(self, cookie, kind, data=b"", last=True):
        self.give("IHHQI", 0x668e33ef, last, kind, cookie, len(data), data=data)

    def answer(self, cookie, error=0, data=b""):
        self.give("IIQ", 0x67446698, error, cookie, data=data)

    def status(self, cookie, *extents, last=True):
        flat = [n for e in extents for n in e]
        self.chunk(cookie, 5, struct.pack(f">{1 + len(flat)}I", 7, *flat), last)

    def serve(self):
        self.agree()
        while True:
            _, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", self.take(28))
            data = self.take(length) if kind == WRITE else b""
            if kind == DISCONNECT:
                raise Gone
            self.server.asked.append((kind, flags, offset, length))
            rule = self.server.rule
            if not (rule and rule(self, kind, cookie, offset, length)):
                self.keep(kind, cookie, offset, length, data)

    def keep(self, kind, cookie, offset, length, data):
        """As a server does that works."""
        disk = self.server.disk
        if kind == READ and self.structured:
            self.chunk(cookie, 1, struct.pack(">Q", offset) + disk[offset:offset + length])
        elif kind == READ:
            self.answer(cookie, data=bytes(disk[offset:offset + length]))
        elif kind == STATUS:
            self.status(cookie, (length, 0))
        else:
            if kind in (WRITE, ZERO):
                disk[offset:offset + length] = data or bytes(length)
            self.answer(cookie)


class Server:
    """On a socket in the test's own folder; `rule` answers in place of what works."""
    count = 0

    def __init__(self, rule=None, flags=ALL, size=SIZE, blocks=None, structured=True, disk=None,
                 connection=Connection):
        Server.count += 1
        self.connection = connection
        self.rule, self.flags, self.size, self.blocks = rule, flags, size, blocks
        self.structured, self.asked = structured, []
        self.disk = bytearray(disk if disk is not None else b"\x55" * min(size, SIZE))
        path = os.path.abspath(f"answers{Server.count}.sock")
        self.uri = f"nbd+unix:///?socket={path}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        with s:
            try:
                self.connection(self, s).serve()
            except (Gone, OSError):
                pass

    def kinds(self):
        return [kind for kind, *_ in self.asked]


class Endless(Connection):
    """Never comes to the end of what it has to say of an export."""

    def reply(self, option, kind, data=b""):
        while option == 7 and kind == 1:
            super().reply(7, 3, struct.pack(">HQH", 0, SIZE, ALL))
            time.sleep(0.01)
        super().reply(option, kind, data)


def statuses(*extents):
    def rule(connection, kind, cookie, _offset, _length):
        if kind == STATUS:
            connection.status(cookie, *extents)
        return kind == STATUS
    return rule


def errors(wanted, code, start=0):
    """An answer of that kind from an offset on is this error."""
    def rule(connection, kind, cookie, offset, _length):
        if kind != wanted or offset < start:
            return False
        connection.answer(cookie, code)
        return True
    return rule


class Answers(Case):
    def setUp(self):
        super().setUp()
        make_content("a.raw", SIZE, 7)
        with open("a.raw", "rb") as f:
            self.content = f.read()

    def read(self, server, most=None):
        self.assertEqual(platter("digest", "--algorithm=sha256", "-f", "raw", server.uri).stdout.split()[0],
                         sha256("a.raw"))
        if most:
            self.assertLess(server.kinds().count(STATUS), most)

    def write(self, server):
        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", server.uri)
        self.assertEqual(server.disk, self.content)

    def refuse(self, *argv, says):
        self.assertRegex(platter(*argv, code=1).stderr, says)
        self.assertFalse([f for f in os.listdir(".") if "out.raw" in f])

    def copy(self, server):
        platter("convert", "-f", "raw", "-O", "raw", server.uri, "copy.raw")
        with open("copy.raw", "rb") as f:
            return f.read()

    def refuse_read(self, rule, says, **more):
        self.refuse("convert", "-f", "raw", "-O", "raw", Server(rule, **more).uri, "out.raw", says=says)

    def refuse_write(self, rule, says, **more):
        self.refuse("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", Server(rule, **more).uri, says=says)

    def test_extents(self):
        """Short ones, vast ones, more than anybody needs, none: data is data, in few questions."""
        for extents in (((0, 0),), ((512, 0),), ((5, 3), (7, 0)), ((512, 3),) * 3 + ((SIZE, 0),),
                        ((0xffffffff, 0),) * 2, tuple((4, i % 2 * 3) for i in range(40000))):
            with self.subTest(extents[:3]):
                disk = bytearray(self.content)
                at = 0
                for length, state in extents:
                    if state:
                        disk[at:at + length] = bytes(min(length, max(0, SIZE - at)))
                    at += length
                server = Server(statuses(*extents), disk=disk if extents[0][0] != 5 else bytes(SIZE))
                self.assertEqual(self.copy(server), server.disk)
                self.assertLess(server.kinds().count(STATUS), 3 * SIZE // (64 * KIB) + 1)
        self.read(Server(errors(STATUS, EIO), disk=self.content), 100)
        self.refuse_read(statuses(), "cannot ask for extents of .*BLOCK_STATUS")

    def test_zeros_are_zeros(self):
        """What it calls zero is not read; what is less than a block of that is."""
        server = Server(statuses((MIB, 0), (MIB + 100, 3), (2 * MIB, 0)), disk=self.content)
        got = self.copy(server)
        self.assertEqual(got[:MIB] + got[2 * MIB:], self.content[:MIB] + self.content[2 * MIB:])
        self.assertEqual(got[MIB:2 * MIB], bytes(MIB))
        self.assertFalse([a for a in server.asked if a[0] == READ and MIB <= a[2] < 2 * MIB])

    def test_pieces(self):
        """The pieces of a read in any order; one that is missing, there twice, or somewhere else."""
        def pieces(*parts, kind=1):
            def rule(connection, asked, cookie, offset, length):
                if asked != READ:
                    return False
                for first, last in parts:
                    first, last = offset + length * first // 4, offset + length * last // 4
                    body = connection.server.disk[first:last] if kind == 1 else struct.pack(">I", min(last - first, 1 << 31))
                    connection.chunk(cookie, kind, struct.pack(">Q", first) + body, last=False)
                connection.chunk(cookie, 0)
                return True
            return rule

        for structured in (True, False):
            self.read(Server(structured=structured, disk=self.content))
        self.read(Server(pieces((3, 4), (0, 1), (1, 3)), disk=self.content))
        for parts in (((0, 2),), ((0, 2), (0, 2)), ((0, 1), (2, 4)), ((0, 3), (1, 4)), ((0, 1), (0, 3))):
            self.refuse_read(pieces(*parts), r"cannot read \d+ bytes at offset \d+: .*leaves some of them out")
        self.refuse_read(pieces((0, 2), kind=2), "leaves some of them out")
        for _ in range(40):
            self.refuse_read(pieces((4, 5)), "out of bounds")
        self.refuse_read(pieces((0, 1 << 20), kind=2), "out of bounds|closed")

    def test_errors(self):
        """With what was asked, where, and where the server says that it is; then the end, or not."""
        def at(connection, kind, cookie, offset, _length):
            if kind != READ or offset < 2 * MIB:
                return False
            connection.chunk(cookie, 0x8002, struct.pack(">IH", EIO, 8) + b"\x1b]0;oops" +
                             struct.pack(">Q", offset + 4096))
            return True

        def gone(connection, kind, cookie, _offset, _length):
            if kind == WRITE:
                connection.answer(cookie, ENOSPC)
                raise Gone
            return False

        self.refuse_read(at, f"at offset {2 * MIB}: the server answers of offset {2 * MIB + 4096}: Input/output error")
        for _ in range(5):
            self.refuse("bench", "-w", "-c1", "-f", "raw", Server(gone).uri,
                        says=r"cannot write \d+ bytes at offset \d+: the server answers: No space left")
        self.refuse_write(errors(WRITE, ESHUTDOWN, 2 * MIB), "cannot write .* that it is shutting down")
        self.refuse_write(errors(FLUSH, EIO), "cannot flush: the server answers: Input/output error")
        self.refuse_write(errors(WRITE, EPERM), "not permitted")
        for code in (EINVAL, EOVERFLOW):
            self.write(Server(errors(ZERO, code)))
        self.refuse_write(errors(ZERO, EIO), "cannot zero .* the server answers: Input/output error")
        self.refuse_write(errors(WRITE, 12345), "cannot write .* the server answers: ")

    def test_what_it_can(self):
        """Flushed in the way there is; zeros and discards in others where there is none."""
        for flags, flush, fua in ((ALL, 1, 0), (HAS_FLAGS, 0, 0), (HAS_FLAGS | CAN_FUA, 0, FUA),
                                  (ALL & ~CAN_ZERO, 1, 0), (ALL & ~CAN_TRIM, 1, 0), (ALL & ~CAN_FLUSH, 0, FUA)):
            with self.subTest(flags):
                server = Server(flags=flags)
                self.write(server)
                self.assertEqual(FLUSH in server.kinds(), flush)
                self.assertEqual({f & FUA for kind, f, *_ in server.asked if kind in (WRITE, ZERO)}, {fua})
                self.assertEqual(ZERO in server.kinds(), bool(flags & CAN_ZERO))
        self.refuse_write(None, "only be read", flags=ALL | READ_ONLY)

    def test_blocks(self):
        """Least and most of a request, also those that make no sense."""
        for blocks in ((4096, 4096, MIB), (65536, 65536, 65536), (1, 4096, 0xffffffff), (4096, 4096, 10000),
                       (3, 3, 3), (131072, 131072, MIB), (0, 0, 0)):
            with self.subTest(blocks):
                self.read(Server(blocks=blocks, disk=self.content))
                server = Server(blocks=blocks)
                self.write(server)
                least, _, most = blocks
                if most % max(least, 1) == 0 and least in (4096, 65536):
                    for kind, _, offset, length in server.asked:
                        if kind in (READ, WRITE, ZERO):
                            self.assertEqual((offset % least, length % least), (0, 0))
                        if kind in (READ, WRITE):
                            self.assertLessEqual(length, most)

    def test_sizes(self):
        for size in (0, 1 << 62, (1 << 63) - 1):
            self.assertIn(f"({size} bytes)", platter("info", "-f", "raw", Server(size=size, disk=b"").uri).stdout)
        for size in (1 << 63, (1 << 64) - 1):
            self.refuse("info", "-f", "raw", Server(size=size, disk=b"").uri, says="a size that makes sense")

    def test_endless(self):
        """A handshake without an end, and an answer that never comes: the timeout ends both. What takes
        long with reason is a flush."""
        def silent(_connection, kind, _cookie, offset, _length):
            return kind == READ and offset >= 2 * MIB

        def late(_connection, kind, _cookie, _offset, _length):
            if kind == FLUSH:
                time.sleep(2.5)
            return False

        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", Server(late).uri + "&timeout=1")
        self.refuse("info", "-f", "raw", Server(connection=Endless).uri + "&timeout=1",
                    says="cannot connect: .*timeout")
        self.refuse("convert", "-f", "raw", "-O", "raw", Server(silent).uri + "&timeout=1", "out.raw",
                    says=rf"cannot read \d+ bytes at offset {2 * MIB}: .*timeout")


if __name__ == "__main__":
    main()
