# SPDX-License-Identifier: MIT
"""Live migration from an NBD server that goes away and comes back, or is another one then.

Usage: migrate_back.py
"""
import time

import nbd
from migrate import CHANGED, UNREADABLE, Background, MigrateCase, Target, content, migrate, status, wait_for_state
from nbd_answers import READ, Gone, Server
from nbd_servers import nbdkit
from peers import KIB, MIB, main, make_content
from serve import SIZE, wait_until

BIG = 64 * MIB


class Back(MigrateCase):
    def serve(self, raw="disk.raw"):
        return nbdkit("file", raw, options=["-r"], name="source")

    def reads(self, uri, off):
        h = nbd.NBD()
        h.connect_uri(uri)
        try:
            return h.pread(64 * KIB, off)
        except nbd.Error as e:
            self.assertEqual(e.errno, "EIO")
            return None
        finally:
            h.shutdown()

    def test_guest(self):
        """What a guest reads is back as soon as the server is, without anybody's doing."""
        server = self.serve()
        right = content("disk.raw")[4 * MIB:4 * MIB + 64 * KIB]
        self.prepare("-f", "raw", server.uri)
        with Target("vm.qcow2") as s:
            self.reads(s.uri, 0)
            server.kill()
            self.assertIsNone(self.reads(s.uri, 4 * MIB))
            server = self.serve()
            wait_until(lambda: self.reads(s.uri, 4 * MIB) == right, "the source is back")
            failed = status()["failed-reads"]
            self.assertGreater(failed, 0)
            server.kill()
            server = self.serve()  # nobody has read meanwhile
            self.assertEqual(self.read_all(s.uri), [])
            self.assertEqual(status()["failed-reads"], failed)
            migrate("execute", "vm.qcow2")
            migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")
        server.stop()

    def test_another(self):
        """Of another size: none of its bytes are taken, and nothing is copied until the right one is back."""
        make_content("other.raw", SIZE + MIB, 99)
        server = self.serve()
        self.prepare("-f", "raw", server.uri)
        with Target("vm.qcow2") as s:
            self.reads(s.uri, 0)
            server.kill()
            server = self.serve("other.raw")
            self.assertGreater(len(self.read_all(s.uri)), 0)
            self.assertIn("size", migrate("execute", "vm.qcow2", code=CHANGED).stderr)
            server.kill()
            server = self.serve()
            migrate("execute", "vm.qcow2")
            self.assertEqual(self.read_all(s.uri), [])
            migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")
        server.stop()

    def test_dropped(self):
        """A connection that breaks every now and then costs a copy nothing but time."""
        reads = 0

        def rule(_connection, kind, _cookie, _offset, _length):
            nonlocal reads
            reads += kind == READ
            if kind == READ and reads % 7 == 0:
                raise Gone
            return False
        server = Server(rule, disk=content("disk.raw"), size=SIZE)
        self.prepare("-f", "raw", server.uri)
        migrate("execute", "vm.qcow2")
        self.assertGreater(reads, 7)
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "disk.raw")

    def test_always_dropped(self):
        """One that breaks at every read of a place: that is missing, and nothing else."""
        make_content("big.raw", BIG, 5)
        def rule(_connection, kind, _cookie, offset, length):
            if kind == READ and offset <= 4 * MIB < offset + length:
                raise Gone
            return False
        server = Server(rule, disk=content("big.raw"), size=BIG)
        self.prepare("-f", "raw", server.uri)
        migrate("execute", "vm.qcow2", code=UNREADABLE)
        self.assertEqual([(r["start"], r["length"]) for r in status()["missing"]], [(4 * MIB, 64 * KIB)])
        server.rule = None
        migrate("execute", "vm.qcow2")
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "big.raw")

    def test_started_again(self):
        """A server that does not listen for a moment: the copy waits."""
        make_content("big.raw", BIG, 5)
        server = self.serve("big.raw")
        self.prepare("-f", "raw", server.uri)
        with Target("vm.qcow2"), Background("execute", "--rate", "20M", "vm.qcow2") as copy:
            wait_for_state("executing")
            server.kill()
            time.sleep(0.5)
            server = self.serve("big.raw")
            copy.end()
        migrate("commit", "vm.qcow2")
        self.check_alone("vm.qcow2", "big.raw")
        server.stop()

    def test_always_ended(self):
        """A server that takes every connection and answers nothing: the copy comes to its end."""
        def rule(_connection, kind, _cookie, _offset, _length):
            if kind == READ:
                raise Gone
            return False
        server = Server(disk=content("disk.raw"), size=SIZE)
        self.prepare("-f", "raw", server.uri)
        server.rule = rule
        begun = time.monotonic()
        migrate("execute", "vm.qcow2", code=UNREADABLE)
        self.assertLess(time.monotonic() - begun, 60)
        self.assertLess(server.kinds().count(READ), 200)


if __name__ == "__main__":
    main()
