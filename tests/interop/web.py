# SPDX-License-Identifier: MIT
"""Disks on web servers: every format reads as the local file, through TLS, HTTP/2, logins and
redirects; and what a server does wrong is corrected or told, and never a wrong byte.

Usage: web.py Formats|Servers|Faults
"""
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

from peers import KIB, MIB, PLATTER, Case, make_content, platter, qemu_img, run, sha256, text_like
from nbd_servers import free_port
from web_servers import CHANGED_ETAG, ETAG, Faulty, Nginx, Socks, date

# The quickest that still is patient; and a stall that is over soon.
QUICK = "timeout=1,connect_timeout=2,retry_time=6"


# What the machine at hand has set up does not matter here.
for variable in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy",
                 "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(variable, None)


def digest(name, *options):
    return platter("digest", *options, name).stdout.split()[0]


def started_nginx(case):
    server = Nginx()
    case.addCleanup(server.stop)
    return server


class Formats(Case):
    """What is on a server equals the file that it is."""

    IMAGES = {  # name: how qemu-img makes it
        "d.qcow2": ["-O", "qcow2"], "packed.qcow2": ["-O", "qcow2", "-c"],
        "zstd.qcow2": ["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        "small.qcow2": ["-O", "qcow2", "-o", "cluster_size=512"],
        "subclusters.qcow2": ["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"],
        "v2.qcow2": ["-O", "qcow2", "-o", "compat=0.10"], "v1.qcow": ["-O", "qcow"],
        "sparse.vmdk": ["-O", "vmdk"], "stream.vmdk": ["-O", "vmdk", "-o", "subformat=streamOptimized"]}

    def setUp(self):
        super().setUp()
        os.mkdir("www")

    def make(self):
        make_content("www/d.raw", 9 * MIB + 512, 3)
        for name, options in self.IMAGES.items():
            qemu_img("convert", "-f", "raw", *options, "www/d.raw", f"www/{name}")
        run("gzip", "-k", "www/packed.qcow2")
        run("zstd", "-q", "www/d.qcow2", "-o", "www/d.qcow2.zst")
        return [*self.IMAGES, "packed.qcow2.gz", "d.qcow2.zst"]

    def test_formats(self):
        names = self.make()
        server = started_nginx(self)
        right = digest("www/d.raw", "-f", "raw")
        self.assertEqual(digest(server.url("d.raw"), "-f", "raw"), right)
        for name in names:
            with self.subTest(name):
                local, url = f"www/{name}", server.url(name)
                self.assertEqual(digest(url), right)
                here = platter("map", "--output=json", local).stdout
                self.assertEqual(platter("map", "--output=json", url).stdout, here)
                here = json.loads(platter("info", "--output=json", local).stdout)
                there = json.loads(platter("info", "--output=json", url).stdout)
                self.assertEqual(there["filename"], url)
                for key in ("format", "virtual-size", "format-specific"):
                    self.assertEqual(str(there.get(key)).replace(url, local), str(here.get(key)), key)
                platter("compare", "-q", "-f", "raw", "www/d.raw", url)
        platter("convert", "-O", "qcow2", server.url("stream.vmdk"), "out.qcow2")
        qemu_img("compare", "-f", "raw", "-F", "qcow2", "www/d.raw", "out.qcow2")

    def test_archives(self):
        make_content("d.raw", 9 * MIB, 5)
        platter("archive", "create", "-q", "www/a.vma", "-d", "drive-scsi0=d.raw", "-f", "raw")
        run("zstd", "-q", "www/a.vma")
        server = started_nginx(self)
        for name in ("a.vma", "a.vma.zst"):
            platter("verify", "-q", server.url(name))
            platter("extract", "-q", "-d", "drive-scsi0", server.url(name), f"{name}.out")
            self.assertEqual(sha256(f"{name}.out"), sha256("d.raw"))

    def test_few_requests(self):
        """info of an image takes at most 4, the first of which also tells the size."""
        names = self.make()
        with open("large.raw", "wb") as f:
            f.truncate(200 << 30)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "large.raw", "www/large.qcow2")
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "large.raw", "www/large.vmdk")
        platter("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "www/d.raw",
                "www/ours.vmdk")
        platter("convert", "-f", "raw", "-O", "qcow2", "www/d.raw", "www/ours.qcow2")
        qemu_img("snapshot", "-c", "then", "www/ours.qcow2")
        make_content("d.raw", 9 * MIB, 5)
        platter("archive", "create", "-q", "www/a.vma", "-f", "raw",
                *(f"--disk=drive-scsi{i}=d.raw" for i in range(4)))
        server = started_nginx(self)
        for name in [n for n in names if not n.endswith((".gz", ".zst"))] + \
                ["large.qcow2", "large.vmdk", "ours.vmdk", "ours.qcow2", "a.vma"]:
            server.asked()
            platter("info", server.url(name))
            asked = server.asked()
            self.assertLessEqual(len(asked), 4, f"{name}: {asked}")
            self.assertGreater(len(asked), 0)

    def test_backing(self):
        """Names in an image lead to its own folder on the server, and nowhere else."""
        make_content("www/base.raw", 2 * MIB, 7)
        os.chdir("www")
        os.mkdir("below")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "../base.raw", "-F", "raw",
                 "below/out.qcow2", "2M")
        ways = ("below/..%2fbase.raw", "below/%2e%2E%2Fbase.raw", "below/x/..%5c..%5cbase.raw",
                "below/%2e%2e/base.raw", "below/.%2e?")
        os.chdir("..")
        server = started_nginx(self)
        self.assertEqual(digest(server.url("top.qcow2")), digest("www/base.raw", "-f", "raw"))
        at = server.url("private/top.qcow2", login="me:pass%20word@")
        self.assertEqual(digest(at), digest("www/base.raw", "-f", "raw"))
        said = platter("digest", server.url("below/out.qcow2"), code=1).stderr
        self.assertIn("--allow", said)
        for way in ways:
            with self.subTest(way):
                qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", server.url(way), "-F", "raw",
                         "www/below/out.qcow2", "2M")
                said = platter("digest", server.url("below/out.qcow2"), code=1).stderr
                self.assertIn("--allow", said)


class Servers(Case):
    """What servers want, and what they may not do."""

    def setUp(self):
        super().setUp()
        os.mkdir("www")
        self.server = started_nginx(self)
        make_content("www/d.raw", 5 * MIB + 512, 9)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "www/d.raw", "www/d.qcow2")
        self.right = digest("www/d.raw", "-f", "raw")

    def place(self, url, *keys, code=0, verb="digest"):
        options = [f"--place={key}" for key in keys]
        return platter(verb, *options, url, code=code)

    def works(self, url, *keys):
        self.assertEqual(self.place(url, *keys).stdout.split()[0], digest("www/d.qcow2"))

    def fails(self, url, *keys, word):
        said = self.place(url, *keys, code=1).stderr
        self.assertIn(word, said)
        self.assertNotIn("pass word", said)
        return said

    def test_tls(self):
        url = self.server.url("d.qcow2", "tls")
        self.works(url, "ca_file=ca.pem")
        self.assertIn("HTTP/2.0", self.server.asked()[-1])
        self.works(url, "ca_file=ca.pem,http2=off")
        self.assertIn("HTTP/1.1", self.server.asked()[-1])
        self.works(url, "insecure=on")
        os.environ["SSL_CERT_FILE"] = os.path.abspath("ca.pem")
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.works(url)
        os.environ["CURL_CA_BUNDLE"] = os.path.abspath("client.pem")
        self.addCleanup(os.environ.pop, "CURL_CA_BUNDLE")
        self.fails(url, word="ca_file")
        self.fails(self.server.url("d.qcow2", "old"), "ca_file=ca.pem", QUICK, word="SSL")

    def test_http2_without_tls(self):
        self.works(self.server.url("d.qcow2", "bare"), "http2=always")
        self.assertIn("HTTP/2.0", self.server.asked()[-1])

    def test_client_certificate(self):
        url = self.server.url("d.qcow2", "known")
        self.works(url, "ca_file=ca.pem,cert=client.pem,key=client-key.pem")
        self.fails(url, "ca_file=ca.pem", word="400")

    def test_login(self):
        url = self.server.url("private/d.qcow2")
        self.fails(url, word="user and password")
        self.works(self.server.url("private/d.qcow2", login="me:pass%20word@"))
        self.works(url, "user=me,password=pass word")
        with open("word", "w", encoding="ascii") as f:
            f.write("pass word\nsecond line\n")
        self.works(url, "user=me,password=file:word")
        os.environ["THE_WORD"] = "pass word"
        self.addCleanup(os.environ.pop, "THE_WORD")
        self.works(url, "user=me,password=env:THE_WORD")
        self.works(url, "headers=Authorization: Basic bWU6cGFzcyB3b3Jk")
        said = self.place(self.server.url("private/d.qcow2", login="me:pass%20word@"),
                          verb="info").stdout
        self.assertIn("/private/d.qcow2", said)
        self.assertNotIn("pass", said)

    def test_redirects(self):
        self.works(self.server.url("moved/d.qcow2"))
        # The URL that it leads to is remembered.
        asked = self.server.asked()
        self.assertEqual(sum("/moved/" in line for line in asked), 1, asked)
        # Who we are is not told to anybody else.
        self.works(self.server.url("elsewhere/d.qcow2", login="me:pass%20word@"),
                   "headers=X-Token: secret")
        asked = self.server.asked()
        here = [line for line in asked if f" {self.server.ports['plain']} " in line]
        there = [line for line in asked if f" {self.server.ports['other']} " in line]
        self.assertTrue(all("Basic" in line and "secret" in line for line in here), asked)
        self.assertTrue(there)
        self.assertTrue(all(line.endswith('"-" "-"') for line in there), asked)
        self.fails(self.server.url("around/d.qcow2"), word="redirects")
        self.fails(self.server.url("odd/d.qcow2"), word="no http")
        self.fails(self.server.url("down/d.qcow2", "tls"), "ca_file=ca.pem", word="https to http")

    def test_missing(self):
        said = self.fails(self.server.url("none"), word="404 Not Found")
        self.assertIn(self.server.url("none"), said)
        said = platter("convert", "-f", "raw", "-O", "raw", "www/d.raw", self.server.url("new"),
                       code=1).stderr
        self.assertIn("only be read", said)

    def test_without_ranges(self):
        """Whole raw disks are copied front to back, and any format by way of a temporary file."""
        url = self.server.url("d.raw", "whole")
        platter("convert", "-f", "raw", "-O", "qcow2", url, "out.qcow2")
        self.assertEqual(digest("out.qcow2"), digest("www/d.qcow2"))
        self.assertEqual(digest(url, "-f", "raw"), self.right)
        platter("convert", "--spool=.", "-O", "raw", self.server.url("d.qcow2", "whole"), "out.raw")
        self.assertEqual(sha256("out.raw"), sha256("www/d.raw"))

    def test_empty(self):
        open("www/empty", "wb").close()
        said = platter("info", "-f", "raw", self.server.url("empty")).stdout
        self.assertIn("(0 bytes)", said)

    def test_proxy(self):
        proxied = f"proxy=http://127.0.0.1:{self.server.ports['plain']}"
        self.works("http://nowhere.invalid/d.qcow2", proxied)
        self.assertIn("/d.qcow2", self.server.asked()[-1])
        os.environ["http_proxy"] = proxied.partition("=")[2]
        self.addCleanup(os.environ.pop, "http_proxy")
        self.works("http://nowhere.invalid/d.qcow2")
        self.fails("http://nowhere.invalid/d.qcow2", "proxy=", word="nowhere.invalid")


class Faults(Case):
    """A server that misbehaves: the right bytes, or a sentence; never for longer than it was given."""

    SIZE = 3 * MIB + 100

    def setUp(self):
        super().setUp()
        self.content = text_like(random.Random(4), self.SIZE)
        with open("right", "wb") as f:
            f.write(self.content)
        self.right = digest("right", "-f", "raw")

    def faulty(self, plan, content=None):
        server = Faulty(self.content if content is None else content, plan)
        self.addCleanup(server.stop)
        return server

    def read(self, server, keys=QUICK, code=0, seconds=60):
        begun = time.monotonic()
        done = platter("digest", "-f", "raw", f"--place={keys}", server.url(), code=code)
        self.assertLess(time.monotonic() - begun, seconds)
        return done

    def recovers(self, plan, keys="timeout=1,retry_time=60", **more):
        server = self.faulty(plan)
        done = self.read(server, keys, **more)
        self.assertEqual(done.stdout.split()[0], self.right)
        return server

    def fails(self, plan, *words, keys=QUICK, **more):
        server = self.faulty(plan)
        said = self.read(server, keys, code=1, **more).stderr
        for word in words:
            self.assertIn(word, said)
        self.assertIn(server.url(), said)
        server.requests.clear()
        # What was made of it is gone.
        platter("convert", "-f", "raw", "-O", "qcow2", f"--place={keys}", server.url(), "out.qcow2", code=1)
        self.assertEqual([n for n in os.listdir(".") if "out.qcow2" in n], [])
        return server

    # What passes: every request fails once, or every third one.

    def test_drops(self):
        """The connection goes."""
        self.recovers(lambda n, *_: "drop" if n % 3 == 0 else None)

    def test_truncated(self):
        server = self.recovers(lambda n, first, last: ("truncate", 5000) if n % 3 == 1 else None)
        # It goes on where it was cut off.
        self.assertIn(5000 % (64 * KIB), {first % (64 * KIB) for first, _, _ in server.requests})

    def test_truncated_with_length(self):
        """A body that is shorter than its range, and says so of itself."""
        self.recovers(lambda n, first, last: ("say", {"Content-Length": "1000", "Connection": "close"})
                      if n == 1 else None)

    def test_short_ranges(self):
        server = self.recovers(lambda n, first, last: ("short", 30000))
        self.assertGreater(len(server.requests), 80)

    def test_stalls(self):
        self.recovers(lambda n, *_: ("stall", 1000) if n in (1, 3) else None)

    def test_unavailable(self):
        begun = time.monotonic()
        self.recovers(lambda n, *_: ("status", "503 Service Unavailable", {"Retry-After": "2"})
                      if n == 0 else None)
        self.assertGreater(time.monotonic() - begun, 2)

    def test_many_requests(self):
        self.recovers(lambda n, *_: ("status", "429 Too Many Requests", {}) if n % 4 == 0 else None)

    # What does not.

    def test_always_unavailable(self):
        server = self.fails(lambda n, *_: ("status", "503 Service Unavailable", {}),
                            "503 Service Unavailable", "tries", keys="retries=2")
        self.assertEqual(len(server.requests), 3)

    def test_asked_for_too_long(self):
        self.fails(lambda n, *_: ("status", "503 Service Unavailable", {"Retry-After": "100"}), "503",
                   seconds=5)

    def test_always_stalls(self):
        self.fails(lambda n, *_: ("stall", 0) if n else None, "bytes at offset",
                   keys="timeout=1,retries=1")

    def test_stalls_after_headers_at_once(self):
        self.fails(lambda n, *_: ("stall", 0), "does not answer", keys="timeout=1,retries=0")

    def test_drips(self):
        """What comes so slowly that it never ends."""
        self.fails(lambda n, *_: ("drip", 200), "too slow", keys="timeout=1,retries=0", seconds=15)

    def test_signal_while_opening(self):
        """It does not wait for the server."""
        server = self.faulty(lambda n, *_: ("stall", 0))
        for verb in ("digest",), ("convert", "-O", "raw"), ("check",):
            server.requests.clear()
            started = subprocess.Popen([PLATTER, *verb, server.url(), *["out"] * (verb[0] == "convert")])
            while not server.requests and started.poll() is None:
                time.sleep(0.01)
            begun = time.monotonic()
            started.send_signal(signal.SIGTERM)
            self.assertEqual(started.wait(25), -signal.SIGTERM)
            self.assertLess(time.monotonic() - begun, 5)
            self.assertFalse(os.path.exists("out"))

    def test_refused(self):
        server = self.fails(lambda n, *_: ("status", "403 Forbidden", {}), "403 Forbidden")
        self.assertEqual(len(server.requests), 1)  # not tried again

    def test_digest_login(self):
        """The password itself is never told."""
        def hashed(*parts):
            return hashlib.md5(":".join(parts).encode()).hexdigest()

        def plan(n, *_):
            way, _, said = server.requests[n][2].get("authorization", "").partition(" ")
            f = {k: a or b for k, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', said)}
            if way == "Digest" and f["response"] == hashed(
                    hashed("me", "here", "pass word"), f["nonce"], f["nc"], f["cnonce"], "auth",
                    hashed("GET", "/disk")):
                return None
            self.assertNotEqual(way, "Basic")
            return ("status", "401 Unauthorized",
                    {"WWW-Authenticate": f'Digest realm="here", qop="auth", nonce="{n}"'})

        server = self.faulty(plan)
        for auth in "digest", "any":
            done = self.read(server, f"auth={auth},user=me,password=pass word")
            self.assertEqual(done.stdout.split()[0], self.right)
        server.requests.clear()
        said = self.read(server, "auth=digest,user=me,password=secret", code=1).stderr
        self.assertIn("look at user and password", said)
        self.assertNotIn("secret", said)
        self.assertEqual(len(server.requests), 2)

    def test_socks(self):
        server, proxy = self.faulty(lambda *_: None), Socks("me", "pass word")
        self.addCleanup(proxy.stop)
        url = f"http://nowhere.invalid:{server.port}/disk"
        at = f"127.0.0.1:{proxy.port}"
        done = platter("digest", "-f", "raw", f"--place=proxy=socks5h://me:pass%20word@{at}", url)
        self.assertEqual(done.stdout.split()[0], self.right)
        self.assertEqual(set(proxy.asked), {("nowhere.invalid", server.port)})
        said = platter("info", f"--place=proxy=socks5h://me:secret@{at}", url, code=1).stderr
        self.assertIn("SOCKS5", said)
        self.assertNotIn("secret", said)

    def test_proxy_refuses(self):
        """It is asked once."""
        for status, word in (("407 Proxy Authentication Required", "proxy's user"), ("403 No", "403")):
            server = self.faulty(lambda *_, status=status: ("status", status, {}))
            said = platter("info", f"--place=proxy=http://me:secret@127.0.0.1:{server.port}",
                           "https://nowhere.invalid/disk", code=1).stderr
            self.assertIn(word, said)
            self.assertNotIn("secret", said)
            self.assertEqual(len(server.requests), 1)

    def test_lies_about_the_range(self):
        for said in ("bytes 5-65540/3145828", "bytes 0-70000/3145828", "bytes 100-200/3145828",
                     "bytes 0-65535/3", "nonsense", None, "bytes */3145828"):
            with self.subTest(said):
                self.fails(lambda n, first, last: ("say", {"Content-Range": said})
                           if n == 0 else None, "server")

    def test_sends_too_much(self):
        self.fails(lambda n, *_: "more" if n >= 1 else None, "more than the")

    def test_encoded(self):
        self.fails(lambda n, *_: ("say", {"Content-Encoding": "gzip"}), "Content-Encoding")

    def test_several_ranges(self):
        self.fails(lambda n, *_: ("say", {"Content-Range": None, "Content-Type":
                                          "multipart/byteranges; boundary=x"}), "not with which")

    def test_no_http(self):
        self.fails(lambda n, *_: ("garbage", b"220 this is mail\r\n"), "", keys="retries=1")
        self.fails(lambda n, *_: ("garbage", b"HTTP/1.1 206 OK\r\n" + b"X: y\r\n" * 20000 + b"\r\n"),
                   "headers", keys="retries=1")
        self.fails(lambda n, *_: ("garbage", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000), "",
                   keys="retries=1")

    # What changes.

    def changes(self, plan, *words, **more):
        words = words or ("changed", "begin again")
        return self.fails(plan, *words, **more)

    def test_changes(self):
        other = text_like(random.Random(5), self.SIZE)
        for name, content, etag in (("tag", other, CHANGED_ETAG), ("shorter", other[:MIB], ETAG),
                                    ("longer", other + b"x", ETAG), ("both", other[:5], CHANGED_ETAG)):
            with self.subTest(name):
                server = Faulty(self.content, lambda n, *_: ("change", content, etag) if n == 2 else None)
                self.addCleanup(server.stop)
                said = self.read(server, code=1).stderr
                self.assertIn("changed", said)
                self.assertIn("begin again", said)

    def test_precondition(self):
        server = self.changes(lambda n, *_: ("status", "412 Precondition Failed", {}) if n >= 2 else None)
        self.assertTrue(all(h.get("if-match") == ETAG for f, _, h in server.requests if f))

    def test_link_that_ends(self):
        """Where a redirect led is asked no more when it refuses, if the URL leads elsewhere now."""
        ended = lambda n, *_: ("status", "403 Forbidden", {}) if n == 2 else None
        there = self.faulty(ended)
        server = self.faulty(lambda *_: ("status", "302 Found", {"Location": there.url()}))
        self.assertEqual(self.read(server).stdout.split()[0], self.right)
        self.assertGreater(len(server.requests), 1)
        there.plan = lambda n, *_: ("status", "403 Forbidden", {})
        self.assertIn("refuses it", self.read(self.faulty(
            lambda n, *_: ("status", "302 Found", {"Location": there.url()}) if n else None), code=1).stderr)

    def test_whole_at_once(self):
        """200 is everything from the beginning, whatever was asked for."""
        self.changes(lambda n, first, last: "whole" if first else None)

    def test_long_tag(self):
        """However long it is, it comes back as it was."""
        server = self.faulty(lambda *_: None)
        server.etag = '"' + 1000 * "e" + '"'
        self.assertEqual(self.read(server).stdout.split()[0], self.right)
        self.assertEqual({h.get("if-match") for f, _, h in server.requests if f}, {server.etag})

    def test_dates(self):
        server = Faulty(self.content)
        self.addCleanup(server.stop)
        server.etag, server.date = None, date(1e9)
        self.read(server)
        self.assertTrue(all(h.get("if-unmodified-since") == server.date
                            for f, _, h in server.requests if f))
        server.requests.clear()
        server.plan = lambda n, *_: ("say", {"Last-Modified": date(1e9 + 5)}) if n == 2 else None
        self.assertIn("changed", self.read(server, code=1).stderr)
        server.requests.clear()
        server.etag = 'W/"weak"'
        server.plan = lambda n, *_: ("say", {"ETag": 'W/"other"'}) if n == 2 else None
        self.assertIn("changed", self.read(server, code=1).stderr)
        self.assertFalse(any("if-match" in h for _, _, h in server.requests))

    # Sizes.

    def test_no_total(self):
        """The size comes from HEAD where ranges do not tell it."""
        server = self.faulty(lambda n, first, last: ("say", {
            "Content-Range": f"bytes {first}-{min(last, self.SIZE - 1)}/*"}) if n != 1 else None)
        self.assertEqual(self.read(server).stdout.split()[0], self.right)
        self.assertNotIn("range", server.requests[1][2])
        for other in ({"ETag": CHANGED_ETAG}, "changed"), ({"Content-Encoding": "gzip"}, "how large"):
            server.requests.clear()
            server.plan = lambda n, first, last, say=other[0]: ("say", {
                "Content-Range": f"bytes {first}-{last}/*"} if n == 0 else say)
            self.assertIn(other[1], self.read(server, code=1).stderr)

    def test_empty(self):
        server = self.faulty(lambda n, *_: None, content=b"")
        self.assertIn("(0 bytes)", platter("info", "-f", "raw", server.url()).stdout)

    def test_without_ranges(self):
        """All of it, in one answer that must not end early, and must say where it ends."""
        whole = self.faulty(lambda *_: "whole")
        self.assertEqual(self.read(whole).stdout.split()[0], self.right)
        self.fails(lambda n, first, last: "whole" if n % 2 == 0 else ("truncate", 2 * MIB), "")
        self.fails(lambda *_: "unframed", "how long")

    def test_lengths(self):
        """What says in two ways how long it is: the chunks count, and of two lengths neither."""
        head, size = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n", len(self.content)
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, self.content)
        self.recovers(lambda *_: ("garbage", head + chunks))
        self.fails(lambda *_: ("garbage", head + b"Content-Length: %d\r\n\r\n%b" % (size, self.content)),
                   "how long")

    def test_nobody(self):
        begun = time.monotonic()
        said = platter("info", f"http://127.0.0.1:{free_port()}/disk", code=1).stderr
        self.assertIn("connect", said)
        self.assertLess(time.monotonic() - begun, 10)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
