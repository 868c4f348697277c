# SPDX-License-Identifier: MIT
"""By what disks on web and NBD servers, on devices, and in chains are known again."""
import os
import time

from known import Known, known
from nbd_servers import nbdkit
from peers import KIB, MIB, Case, main, make_content, qemu_img, run
from web_servers import CHANGED_ETAG, Faulty, Nginx, date


class Identity(Case):

    def changed(self, image, fmt, before, *words):
        with Known(image, fmt) as k:
            said = k.again(before)
        for word in ("the source has changed", *words):
            self.assertIn(word, said)

    def faulty(self, **fields):
        server = Faulty(bytes(range(256)) * 8 * KIB)
        for name, value in fields.items():
            setattr(server, name, value)
        self.addCleanup(server.stop)
        return server

    # ---- web servers -----------------------------------------------------------------------------

    def test_etag(self):
        server = self.faulty(date=date(1e9))
        words, before = known(server.url(), "raw")
        self.assertEqual(words, {"size": str(2 * MIB), "etag": '"first"'})
        server.date = date(2e9)
        with Known(server.url("another/name"), "raw") as k:
            self.assertEqual(k.again(before), "same")
            server.etag = CHANGED_ETAG
            self.assertEqual(k.again(before), "same")  # nobody has asked the server yet
        self.changed(server.url(), "raw", before, 'its etag was "first", and is "second"')
        server.content += b"more"
        self.changed(server.url(), "raw", before, "its size was 2097152, and is 2097156")

    def test_date(self):
        """Without an ETag, or with a weak one, which says no more than a date."""
        for etag in (None, 'W/"weak"'):
            server = self.faulty(etag=etag, date=date(1e9))
            words, before = known(server.url(), "raw")
            self.assertEqual(words, {"size": str(2 * MIB),
                                     "modified": "Sun,%2009%20Sep%202001%2001:46:40%20GMT"})
            server.date = date(2e9)
            self.changed(server.url(), "raw", before, "its modified was Sun", "and is Wed")

    def test_neither(self):
        server = self.faulty(etag='W/"weak"')
        words, before = known(server.url(), "raw")
        self.assertEqual(words, {"size": str(2 * MIB), "etag": 'W/"weak"'})
        server.etag = None
        self.changed(server.url(), "raw", before, 'its etag was W/"weak", and is none')
        self.assertEqual(known(server.url(), "raw")[0], {"size": str(2 * MIB)})

    def test_chain(self):
        """Every file counts, and the name of the server does not."""
        os.mkdir("www")
        os.chdir("www")
        make_content("base.raw", MIB, 1)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
        os.chdir("..")
        server = Nginx()
        self.addCleanup(server.stop)
        url = server.url("top.qcow2")
        with Known(url, "qcow2") as k:
            before = k.first
            self.assertNotEqual(k.words(0)["etag"], k.words(1)["etag"])
        with Known(server.url("top.qcow2", "other"), "qcow2") as k:
            self.assertEqual(k.again(before), "same")
        time.sleep(1)
        with open("www/base.raw", "r+b") as f:
            f.write(b"changed")
        self.changed(url, "qcow2", before, "base.raw: its etag was ")

    def test_without_ranges(self):
        os.mkdir("www")
        make_content("www/d.raw", MIB, 2)
        server = Nginx()
        self.addCleanup(server.stop)
        words, before = known(server.url("d.raw", "whole"), "raw")
        self.assertEqual((words["size"], words["etag"][0]), (str(MIB), '"'))
        self.assertEqual(before, known(server.url("d.raw", "whole"), "raw")[1])

    # ---- NBD -------------------------------------------------------------------------------------

    def test_nbd(self):
        """All that can be told: another one of the same size goes unnoticed."""
        server = nbdkit("memory", "1M", options=("-e", "vm a"))
        words, before = known(server.uri.replace("///", "///vm%20a"), "raw")
        self.assertEqual(words, {"size": str(MIB), "export": "vm%20a"})
        server.stop()
        server = nbdkit("memory", "2M")
        self.addCleanup(server.stop)
        self.changed(server.uri.replace("///", "///vm%20a"), "raw", before,
                     "its size was 1048576, and is 2097152")
        self.changed(server.uri, "raw", known(server.uri.replace("///", "///b"), "raw")[1],
                     "its export was b, and is none")

    # ---- devices ---------------------------------------------------------------------------------

    def test_device(self):
        make_content("disk", MIB, 3)
        make_content("other", MIB, 3)
        devices = []
        for name in ("disk", "other"):
            devices.append(run("losetup", "-f", "--show", name).stdout.strip())
            self.addCleanup(run, "losetup", "-d", devices[-1])
        words, before = known(devices[0], "raw")
        self.assertEqual(words, {"size": str(MIB), "device": os.path.abspath("disk")})
        with Known(devices[0], "raw") as k:
            self.assertEqual(k.again(before), "same")
        self.changed(devices[1], "raw", before, f"its device was {os.path.abspath('disk')}")


main()
