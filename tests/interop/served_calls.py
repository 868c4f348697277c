# SPDX-License-Identifier: MIT
"""What is served, call by call, as programs that use libnbd see it: flags, replies, block status, what is
durable when the server is killed, requests at odd places and beyond the end, and errors by their number.
"""
import errno
import json
import os
import random
import signal
import socket

import nbd

from nbd_servers import nbdkit
from peers import KIB, MIB, TIB, main, make_content, platter, qemu_img, qemu_io
from serve import SIZE, Serve, ServeCase

ZEROES, HOLE = nbd.STATE_ZERO, nbd.STATE_HOLE
ALLOCATION = nbd.CONTEXT_BASE_ALLOCATION


def connect(uri, contexts=(ALLOCATION,), strict=True, structured=True):
    h = nbd.NBD()
    for name in contexts:
        h.add_meta_context(name)
    h.set_request_structured_replies(structured)
    if not strict:
        h.set_strict_mode(0)
    h.connect_uri(uri)
    return h


def status(h, length, offset=0, flags=0):
    """[(length, type)] of base:allocation, as one answer has it."""
    found = []

    def take(name, at, entries, _error):
        assert (name, at) == (ALLOCATION, offset), (name, at)
        found.extend(zip(entries[::2], entries[1::2]))
    h.block_status(length, offset, take, flags)
    return found


class CallCase(ServeCase):
    def fails(self, code, call, *args):
        with self.assertRaises(nbd.Error) as caught:
            call(*args)
        self.assertEqual(caught.exception.errnum, code, f"{caught.exception} instead of {errno.errorcode[code]}")

    def disk(self):
        with open("disk.raw", "rb") as f:
            return f.read()


class Told(CallCase):
    def test_flags(self):
        with Serve(self.make("a.qcow2")) as s:
            h = connect(s.uri)
            for can in ("flush", "fua", "zero", "trim", "multi_conn", "df"):
                self.assertTrue(getattr(h, f"can_{can}")(), can)
            self.assertFalse(h.is_read_only())
            self.assertFalse(h.is_rotational())
            self.assertTrue(h.get_structured_replies_negotiated())
            self.assertEqual(h.get_size(), SIZE)
            self.assertEqual(h.get_block_size(nbd.SIZE_MINIMUM), 1)
            self.assertEqual(h.get_block_size(nbd.SIZE_PREFERRED), 64 * KIB)
            h.shutdown()
        with Serve("-r", "a.qcow2") as s:
            h = connect(s.uri)
            for can in ("fua", "zero", "trim"):
                self.assertFalse(getattr(h, f"can_{can}")(), can)
            self.assertTrue(h.is_read_only() and h.can_multi_conn() and h.can_flush())

    def test_replies(self):
        """In chunks, in one, and in the old way."""
        right = self.disk()
        with Serve(self.make("a.qcow2")) as s:
            for structured in (True, False):
                h = connect(s.uri, structured=structured)
                self.assertEqual(h.get_structured_replies_negotiated(), structured)
                self.assertEqual(h.pread(SIZE, 0), right)
                got = bytearray(SIZE)

                def chunk(data, at, kind, _error, into=got):
                    into[at:at + len(data)] = data if kind == nbd.READ_DATA else bytes(len(data))
                h.pread_structured(SIZE, 0, chunk)
                self.assertEqual(got, right)
            h = connect(s.uri)
            pieces = []
            h.pread_structured(MIB, 5, lambda data, *_: pieces.append(data), nbd.CMD_FLAG_DF)
            self.assertEqual(pieces, [right[5:5 + MIB]])

    def test_contexts(self):
        """The one that is known among others, and where it begins and ends."""
        right = [(e["length"], 0 if not e["zero"] else ZEROES | (0 if "offset" in e else HOLE))
                 for e in json.loads(platter("map", "--output=json", self.make("a.qcow2")).stdout)]
        with Serve("a.qcow2") as s:
            h = connect(s.uri, (ALLOCATION, "qemu:dirty-bitmap:b0", "x:y"))
            self.assertTrue(h.can_meta_context(ALLOCATION))
            self.assertFalse(h.can_meta_context("x:y"))
            self.assertEqual(status(h, SIZE), right)
            self.assertEqual(status(h, SIZE, 0, nbd.CMD_FLAG_REQ_ONE)[0], right[0])
            self.assertEqual(len(status(h, SIZE, 0, nbd.CMD_FLAG_REQ_ONE)), 1)
            for at in (1, 511, 65537, SIZE - 1):
                end, now = 0, None
                for length, kind in right:
                    end += length
                    if end > at:
                        now = (min(end, SIZE) - at, kind)
                        break
                self.assertEqual(status(h, SIZE - at, at)[0], now, at)
            opt = nbd.NBD()
            opt.set_opt_mode(True)
            opt.connect_uri(s.uri)
            names = []
            opt.opt_list_meta_context(names.append)
            self.assertEqual(names, [ALLOCATION])
            opt.opt_abort()
            self.fails(errno.ENOTSUP, connect(s.uri, ()).block_status, 512, 0, lambda *_: 0)

    def test_huge(self):
        """8 TiB: far offsets, and the longest ranges that a request has."""
        platter("create", "-q", "-f", "qcow2", "huge.qcow2", 8 * TIB)
        with Serve("huge.qcow2") as s:
            h = connect(s.uri)
            most = (1 << 32) - 512
            self.assertEqual(status(h, most, 7 * TIB), [(most, ZEROES | HOLE)])
            h.pwrite(b"end", 8 * TIB - 3)
            self.assertEqual(h.pread(5, 8 * TIB - 5), b"\0\0end")
            found = status(h, MIB, 8 * TIB - MIB)
            self.assertEqual((found[0], found[-1][1]), ((MIB - 64 * KIB, ZEROES | HOLE), 0))
            h.trim(most, 8 * TIB - most)
            h.pwrite(b"x" * 512, 5 * TIB)
            h.zero(most, 5 * TIB)
            h.zero(most, 5 * TIB, nbd.CMD_FLAG_NO_HOLE)
            self.assertEqual(h.pread(64 * KIB, 5 * TIB), bytes(64 * KIB))
        qemu_img("check", "-q", "huge.qcow2")

    def test_names(self):
        """Of exports: none that is not there, the same over and over, and all that the protocol allows."""
        platter("snapshot", "-c", "first", self.make("a.qcow2"))
        with Serve("a.qcow2") as s:
            for name in ("second", "f", "first%20", "x" * 4000, "%F0%9F%92%BE", "../a.qcow2"):
                with self.assertRaises(nbd.Error):
                    connect(s.export(name))
            h = nbd.NBD()
            h.set_opt_mode(True)
            h.connect_uri(s.uri)
            h.set_export_name("second")
            self.fails(errno.ENOENT, h.opt_go)
            h.set_export_name("first")
            h.opt_info()
            self.assertTrue(h.is_read_only())
            h.opt_go()
            self.assertEqual(h.pread(SIZE, 0), self.disk())

    def test_no_name_of_several(self):
        """While one of the disks of an archive is in use as well."""
        make_content("small.raw", MIB, 9)
        platter("archive", "create", "-q", "-f", "raw", "a.vma", "-d", "drive-one=disk.raw", "-d",
                "drive-two=small.raw")
        with Serve("a.vma") as s:
            h = connect(s.export("drive-two"))
            with self.assertRaises(nbd.Error):
                connect(s.uri)
            self.assertIn("is an archive of 2 disks", s.said())
            self.assertEqual(len(h.pread(MIB, 0)), MIB)


class Written(CallCase):
    def kill_server(self, name, work):
        """What is there when the server was killed after `work`."""
        with Serve(name, code=1) as s:
            work(s.uri)
            os.kill(s.server(), signal.SIGKILL)
            s.process.wait(30)
        platter("check", "-q", name, code={0, 3})
        if name.endswith("qcow2"):
            qemu_img("check", "-q", name, code={0, 3})

    def test_flushed_on_another_connection(self):
        """What one connection wrote is durable after a flush of another, and seen there at once."""
        noise = random.Random(5).randbytes(3 * MIB)

        def work(uri):
            a, b = connect(uri), connect(uri)
            for at in range(0, len(noise), 300 * KIB):
                a.pwrite(noise[at:at + 300 * KIB], at + 511)
                self.assertEqual(b.pread(4096, at + 511), noise[at:at + 4096])
            a.zero(MIB, 4 * MIB)
            b.flush()
            b.pwrite(b"may be there or not" * 1000, 5 * MIB + 512)
        for name in ("a.qcow2", "sparse.vmdk", "a.qcow"):
            self.kill_server(self.make(name), work)
            with Serve(name) as s:
                h = connect(s.uri)
                self.assertEqual(h.pread(len(noise), 511), noise)
                self.assertEqual(h.pread(MIB, 4 * MIB), bytes(MIB))

    def test_fua(self):
        """Each request that asks for it is durable when it is answered."""
        fua = nbd.CMD_FLAG_FUA

        def work(uri):
            h = connect(uri)
            h.pwrite(b"one" * 1000, 100, fua)
            h.zero(70 * KIB, 64 * KIB + 1, fua)
            h.zero(64 * KIB, MIB, fua | nbd.CMD_FLAG_NO_HOLE)
            h.trim(64 * KIB, 2 * MIB, fua)
        for name in ("a.qcow2", "sparse.vmdk"):
            self.kill_server(self.make(name), work)
            right = bytearray(self.disk())
            right[100:3100] = b"one" * 1000
            right[64 * KIB + 1:134 * KIB + 1] = bytes(70 * KIB)
            right[MIB:MIB + 64 * KIB] = bytes(64 * KIB)
            with Serve(name) as s:
                got = bytearray(connect(s.uri).pread(SIZE, 0))
                trimmed = slice(2 * MIB, 2 * MIB + 64 * KIB)
                self.assertIn(got[trimmed], (right[trimmed], bytearray(64 * KIB)))
                got[trimmed] = right[trimmed]
                self.assertTrue(got == right, name)

    def test_fua_is_flushed(self):
        """Where what is written stands each of them becomes a flush; and what does not ask for it none."""
        there = nbdkit("memory", "2M", f"logfile={self.dir}/calls", filters=["log"])

        def flushes():
            with open("calls") as f:
                return f.read().count(" Flush ")
        with Serve("-f", "raw", there.uri) as s:
            h = connect(s.uri)
            h.pwrite(b"x" * 512, 0)
            before = flushes()
            h.zero(512, 1024)
            self.assertEqual(flushes(), before)
            for call in ((h.pwrite, b"y" * 512, 0), (h.zero, 64 * KIB, 64 * KIB), (h.trim, 64 * KIB, MIB)):
                before = flushes()
                call[0](*call[1:], nbd.CMD_FLAG_FUA)
                self.assertGreater(flushes(), before, call[0])
        there.stop()

    def test_zero(self):
        """Zeros with and without room for what comes after them."""
        qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", "disk.raw", self.make("a.qcow2"))
        with Serve("a.qcow2") as s:
            h = connect(s.uri)
            h.pwrite(b"\1" * 2 * MIB, 0)
            h.zero(MIB, 0, nbd.CMD_FLAG_NO_HOLE)
            h.zero(MIB, MIB)
            self.assertEqual(status(h, 2 * MIB), [(MIB, ZEROES), (MIB, ZEROES | HOLE)])
            self.assertEqual(h.pread(2 * MIB, 0), bytes(2 * MIB))
            h.pwrite(b"\2" * MIB, 2 * MIB)
            h.trim(MIB, 2 * MIB)
            self.assertEqual(status(h, MIB, 2 * MIB), [(MIB, ZEROES | HOLE)])
            self.assertFalse(h.can_fast_zero())  # nothing is promised of how fast it is
            self.fails(errno.EINVAL, h.zero, MIB, 0, nbd.CMD_FLAG_FAST_ZERO)
        qemu_img("check", "-q", "a.qcow2")

    def test_odd_places(self):
        """Bytes that are no sectors, up to the last one."""
        rng = random.Random(9)
        noise = rng.randbytes(MIB)
        for name in ("a.qcow2", "sparse.vmdk", "a.qcow", "packed.qcow2"):
            right = bytearray(self.disk())
            with Serve(self.make(name)) as s:
                h = connect(s.uri)
                for step in range(150):
                    length = rng.choice([1, 2, 3, 511, 513, 4097, 65537])
                    at = SIZE - length if step % 10 == 0 else rng.randrange(SIZE - length)
                    start = rng.randrange(len(noise) - length)
                    if step % 3 == 0:
                        h.zero(length, at)
                        right[at:at + length] = bytes(length)
                    elif step % 3 == 1:
                        h.pwrite(noise[start:start + length], at)
                        right[at:at + length] = noise[start:start + length]
                    else:
                        self.assertEqual(h.pread(length, at), right[at:at + length], f"{name} {at} {length}")
                self.assertTrue(h.pread(SIZE, 0) == right, name)
            platter("check", "-q", name, code={0, 3})


class Refused(CallCase):
    def still_there(self, h):
        self.assertEqual(h.pread(SIZE, 0), self.disk())

    def test_beyond_the_end(self):
        with Serve(self.make("a.qcow2")) as s:
            h = connect(s.uri, strict=False)
            for at in (SIZE - 1, SIZE, SIZE + 512, 1 << 62, (1 << 63) - 1):
                self.fails(errno.EINVAL, h.pread, 2, at)
                self.fails(errno.ENOSPC, h.pwrite, b"ab", at)
                self.fails(errno.ENOSPC, h.zero, 2, at)
                self.fails(errno.EINVAL, h.trim, 2, at)
                self.fails(errno.EINVAL, h.block_status, 2, at, lambda *_: 0)
            self.fails(errno.EINVAL, h.zero, 2, 0, 1 << 9)
            self.fails(errno.EINVAL, h.pread, 0, 0)
            self.still_there(h)

    def test_too_large(self):
        platter("create", "-q", "-f", "qcow2", "big.qcow2", 200 * MIB)
        with Serve("big.qcow2") as s:
            h = connect(s.uri, strict=False)
            self.assertEqual(len(h.pread(64 * MIB, 0)), 64 * MIB)
            h.pwrite(bytes(32 * MIB), 32 * MIB)
            self.assertGreater(len(self.refuse_large(s.uri)), 0)
            self.assertEqual(h.pread(512, 0), bytes(512))

    def refuse_large(self, uri):
        """A read of more than the server gives; the answer's magic, or nothing, as it may hang up."""
        h = connect(uri, strict=False)
        with self.assertRaises(nbd.Error) as caught:
            h.pread(100 * MIB, 0)
        return str(caught.exception)

    def test_read_only(self):
        with Serve("-r", self.make("a.qcow2")) as s:
            h = connect(s.uri, strict=False)
            for call in ((h.pwrite, b"x" * 512, 0), (h.zero, 512, 0), (h.trim, 512, 0),
                         (h.pwrite, b"x", SIZE - 1, nbd.CMD_FLAG_FUA)):
                self.fails(errno.EPERM, *call)
            h.flush()
            self.still_there(h)
        self.check_written("a.qcow2", "qcow2", "disk.raw")

    def test_full(self):
        """No room where the image is; the server goes on, and so does the image when there is some."""
        self.make("a.qcow2")
        os.mkdir("limited")
        real = os.environ["PATH"]
        for limit, code in ((os.path.getsize("a.qcow2") // 512 + 256, errno.ENOSPC),):
            with open("limited/nbdkit", "w") as f:
                f.write(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f {limit}\nPATH={real} exec nbdkit \"$@\"\n")
            os.chmod("limited/nbdkit", 0o755)
            os.environ["PATH"] = f"{self.dir}/limited:{real}"
            try:
                server = nbdkit(os.environ["PLATTER_NBDKIT_PLUGIN"], "a.qcow2")
                h = connect(server.uri)
                h.zero(SIZE, 0)
                self.fails(code, lambda: [h.pwrite(b"\x55" * 64 * KIB, at) for at in range(0, SIZE - 65536, 65536)])
                self.fails(code, h.pwrite, b"\x55" * 64 * KIB, 6 * MIB - 64 * KIB)
                self.assertEqual(h.pread(64 * KIB, 0), b"\x55" * 64 * KIB)
                h.flush()
                h.shutdown()
                server.stop()
            finally:
                os.environ["PATH"] = real
        qemu_img("check", "-q", "a.qcow2", code={0, 3})
        platter("check", "-q", "-r", "leaks", "a.qcow2", code={0, 3})
        with Serve("a.qcow2") as s:
            h = connect(s.uri)
            self.assertEqual(h.pread(64 * KIB, 0), b"\x55" * 64 * KIB)
            h.pwrite(b"\x66" * MIB, 5 * MIB)
        qemu_img("check", "-q", "a.qcow2")

    def test_errors_of_a_server(self):
        """What another server answers is what its error means to ours, by its number."""
        for told, code in (("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO), ("EPERM", errno.EPERM),
                           ("ENOMEM", errno.ENOMEM)):
            there = nbdkit("memory", "2M", f"error={told}", "error-pwrite-rate=100%", f"error-file={self.dir}/now",
                           filters=["error"])
            with Serve("-f", "raw", there.uri) as s:
                h = connect(s.uri)
                h.pwrite(b"x" * 512, 0)
                with open("now", "w"):
                    pass
                self.fails(code, h.pwrite, b"y" * 512, 0)
                os.unlink("now")
                self.assertEqual(h.pread(512, 0), b"x" * 512)
                h.flush()
            there.stop()

    def test_damage(self):
        """EIO where the image is cut, and nowhere else."""
        self.make("a.qcow2")
        entry = next(e for e in json.loads(platter("map", "--output=json", "a.qcow2").stdout)
                     if e["data"] and e["start"] >= MIB)
        os.truncate("a.qcow2", entry["offset"] + 512)
        with Serve("-r", "a.qcow2") as s:
            h = connect(s.uri)
            self.fails(errno.EIO, h.pread, 1024, entry["start"])
            self.fails(errno.EIO, h.pread, entry["length"], entry["start"])
            h.pread(512, 0)

    def test_no_way_to_write(self):
        """A seSparse file that takes no new grains: EIO, also to zeros, and nbdkit lives on."""
        from served_formats import SeSparse, save, text  # pylint: disable=import-outside-toplevel
        save("a-sesparse.vmdk", SeSparse(8192).image())
        save("a.vmdk", text("seSparse", ['RW 8192 SESPARSE "a-sesparse.vmdk"']))
        with Serve("a.vmdk") as s:
            h = connect(s.uri)
            self.fails(errno.EIO, h.pwrite, b"x" * 4096, 0)
            self.fails(errno.EIO, h.pwrite, b"x" * 512, 0)
            h.zero(8 * KIB, 0)
            h.trim(8 * KIB, 0)
            self.assertEqual(h.pread(8192, 0), bytes(8192))


class Gone(CallCase):
    def hang_up(self, uri, rng):
        """A connection that ends with requests under way."""
        h = connect(uri)
        for _ in range(16):
            at = rng.randrange(SIZE - 300 * KIB)
            h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"\x31" * 256 * KIB)), at)
            h.aio_pread(nbd.Buffer(256 * KIB), at)
        for _ in range(rng.randrange(20)):
            if h.poll(0) < 1:
                break
        sock = socket.socket(fileno=os.dup(h.aio_get_fd()))
        if rng.randrange(2):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        del h

    def test_in_the_middle(self):
        """One thread a connection, for nbdkit 1.32 ends where two of one answer somebody who has gone."""
        rng = random.Random(11)
        server = nbdkit(os.environ["PLATTER_NBDKIT_PLUGIN"], self.make("a.qcow2"), options=["-t", "1"])
        stays = connect(server.uri)
        stays.pwrite(b"stays" * 100, 0)
        for _ in range(30):
            self.hang_up(server.uri, rng)
        path = server.uri.split("socket=")[1]
        for said in (b"", b"NBDMAGIC", b"GET / HTTP/1.0\r\n\r\n", bytes(1000), b"\xff" * 1000,
                     b"\0\0\0\3IHAVEOPT\0\0\0\7\xff\xff\xff\xff"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(path)
                stranger.send(said)
        stays.pwrite(b"and on", SIZE - 6)
        self.assertEqual(stays.pread(6, SIZE - 6), b"and on")
        stays.shutdown()
        server.stop()
        self.assertEqual(server.process.returncode, 0)
        qemu_img("check", "-q", "a.qcow2")

    def test_many(self):
        """200 one after the other, and 60 at once."""
        platter("snapshot", "-c", "first", self.make("a.qcow2"))
        right = self.disk()
        with Serve("a.qcow2") as s:
            for i in range(200):
                h = connect(s.export("first") if i % 3 == 0 else s.uri)
                self.assertEqual(h.pread(512, i * 512), right[i * 512:i * 512 + 512])
                if i % 2:
                    h.shutdown()
            del h
            all_of_them = [connect(s.uri) for _ in range(60)]
            for i, h in enumerate(all_of_them):
                h.pwrite(bytes([i]) * 512, i * 512)
            for i, h in enumerate(reversed(all_of_them)):
                self.assertEqual(h.pread(512, i * 512), bytes([i]) * 512)
            with open(f"/proc/{s.server()}/status") as f:
                self.assertIn("Threads:", f.read())
            del all_of_them, h
            self.assertLess(len(os.listdir(f"/proc/{s.server()}/fd")), 200)

    def test_stopped_at_work(self):
        """A signal while there is much to do: what was flushed is there, and nothing is broken."""
        make_content("new.raw", SIZE, 2)
        with Serve(self.make("a.qcow2")) as s:
            h = connect(s.uri)
            h.pwrite(b"flushed" * 1000, 12345)
            h.flush()
            for i in range(64):
                h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 64 * KIB), 64 * KIB * (i + 1))
            s.process.send_signal(signal.SIGTERM)
            s.process.wait(60)
        qemu_img("check", "-q", "a.qcow2")
        with Serve("-r", "a.qcow2") as s:
            self.assertEqual(connect(s.uri).pread(7000, 12345), b"flushed" * 1000)
            qemu_io(s.uri, "raw", "read 0 1M", options=["-r"])


if __name__ == "__main__":
    main()
