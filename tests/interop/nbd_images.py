# SPDX-License-Identifier: MIT
"""Disks on NBD servers, read and written: against nbdkit, with filters that make it awkward, and
qemu-nbd. qemu-img, nbdinfo and the local file say what is right."""
import json
import os
import random
import re
import signal
import subprocess
import time

from nbd_servers import free_port, nbdkit, qemu_nbd, unix_uri
from peers import KIB, MIB, PLATTER, Case, Failed, entry_behind, main, make_content, platter, qemu_img, qemu_io, run, \
    sha256, told
from vma_writer import archive, clusters

SIZE = 24 * MIB


class NbdCase(Case):
    def setUp(self):
        super().setUp()
        self.servers = []
        make_content("a.raw", SIZE, 7)

    def tearDown(self):
        for server in self.servers:
            server.stop()
        super().tearDown()

    def serve(self, *args, **more):
        self.servers.append(nbdkit(*args, **more))
        return self.servers[-1].uri

    def memory(self, size=SIZE, *parameters, full=False, **more):
        """Memory of a server; `full` of something else than zeros."""
        content = [f"data=0x55*{size}"] if full else []
        return self.serve("data" if full else "memory", *(content or [f"size={size}"]), *parameters, **more)

    def serve_qemu(self, image, fmt, *options, **more):
        self.servers.append(qemu_nbd(image, fmt, *options, **more))
        return self.servers[-1].uri

    def digest(self, name, fmt="raw"):
        return platter("digest", "--algorithm=sha256", "-f", fmt, name).stdout.split()[0]

    def text(self, name):
        with open(name, errors="replace") as f:
            return f.read()

    def refuse(self, *argv, says, code=1):
        done = platter(*argv, code=code)
        self.assertRegex(done.stderr, says)
        return done


def as_tables(entries):
    """A map without what holes of the file say: where the server sees them, and we, is for the host."""
    told = []
    for entry in entries:
        entry = {**entry, "zero": entry["zero"] and not entry["data"]}
        last = told[-1] if told else None
        if last and entry_behind(last) == {**entry, "length": last["length"]}:
            last["length"] += entry["length"]
        else:
            told.append(entry)
    return told


class Read(NbdCase):
    def make(self, name, fmt, *options):
        qemu_img("convert", "-f", "raw", "-O", fmt, *options, "a.raw", name)
        return name

    def check_read(self, uri, fmt, image):
        """An image inside of an export is what the file is."""
        self.assertEqual(self.digest(uri, fmt), sha256("a.raw"))
        local, remote = (json.loads(platter("map", "--output=json", "-f", fmt, n).stdout) for n in (image, uri))
        self.assertEqual(as_tables(remote), as_tables(local))
        platter("compare", "-f", fmt, "-F", fmt, uri, image)
        local, remote = (json.loads(platter("info", "--output=json", "-f", fmt, n).stdout.replace(uri, image))
                         for n in (image, uri))
        for key in ("actual-size", "children"):
            local.pop(key, None), remote.pop(key, None)
        self.assertEqual(remote, local)
        platter("convert", "-f", fmt, "-O", "qcow2", uri, "out.qcow2")
        qemu_img("compare", "-f", "raw", "-F", "qcow2", "a.raw", "out.qcow2")

    def test_formats(self):
        for fmt, options in (("raw", ()), ("qcow2", ()), ("qcow2", ("-c",)), ("vmdk", ()),
                             ("vmdk", ("-o", "subformat=streamOptimized")), ("qcow", ())):
            with self.subTest(fmt, options=options):
                image = self.make("image", fmt, *options)
                self.check_read(self.serve("file", image), fmt, image)

    def test_formats_by_content(self):
        for fmt in ("qcow2", "vmdk"):
            uri = self.serve("file", self.make(f"x.{fmt}", fmt))
            self.assertEqual(json.loads(platter("info", "--output=json", uri).stdout)["format"], fmt)
            if fmt == "qcow2":
                platter("check", uri)

    def test_packed(self):
        run("zstd", "-q", self.make("a.qcow2", "qcow2"), "-o", "a.qcow2.zst")
        self.assertEqual(self.digest(self.serve("file", "a.qcow2.zst"), "qcow2"), sha256("a.raw"))

    def test_backing(self):
        """A local file below an image on a server is only for who allows it; a relative name is none."""
        qemu_img("create", "-q", "-f", "qcow2", "-b", os.path.abspath("a.raw"), "-F", "raw", "over.qcow2")
        uri = self.serve("file", "over.qcow2")
        self.refuse("digest", uri, says='a.raw" outside its own folder: allow it')
        done = platter("digest", "--algorithm=sha256", "--allow", ".", uri)
        self.assertEqual(done.stdout.split()[0], sha256("a.raw"))
        qemu_img("create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "over.qcow2")
        for allow in ((), ("--allow", ".")):
            self.refuse("digest", *allow, uri, says='"a.raw", which is relative')

    def test_archive(self):
        archive("x.vma", {1: ("drive-scsi0", SIZE)}, list(clusters(1, "a.raw")))
        uri = self.serve("file", "x.vma")
        platter("verify", "--data", uri)
        platter("extract", "-o", "out", "-O", "raw", uri)
        found = [f for f in os.listdir("out") if "scsi0" in f]
        self.assertEqual([sha256(f"out/{f}") for f in found], [sha256("a.raw")])

    def test_map(self):
        """What we call zeros is what nbdinfo and qemu-img do."""
        self.make("a.qcow2", "qcow2")
        for uri in (self.serve("file", "a.raw"), self.serve_qemu("a.qcow2", "qcow2")):
            ours = [(e["start"], e["length"], e["zero"]) for e in
                    json.loads(platter("map", "--output=json", "-f", "raw", uri).stdout)]
            for text in (run("nbdinfo", "--map", "--json", uri).stdout,
                         qemu_img("map", "--output=json", "-f", "raw", uri).stdout):
                theirs = []
                for e in json.loads(text):
                    entry = (e.get("offset") if "type" in e else e["start"], e["length"],
                             bool(e["type"] & 2) if "type" in e else e["zero"])
                    if theirs and theirs[-1][2] == entry[2]:
                        entry = (theirs[-1][0], theirs[-1][1] + entry[1], entry[2])
                        theirs.pop()
                    theirs.append(entry)
                self.assertEqual(ours, theirs, uri)

    def test_servers(self):
        """Blocks, few extents, none, refused questions, one connection, no structured replies."""
        for filters, parameters, options in (
                (("blocksize-policy",), ("blocksize-minimum=4096", "blocksize-maximum=64K",
                                         "blocksize-error-policy=error"), ()),
                (("noextents",), (), ()),
                (("error",), ("error-extents-rate=100%",), ()),
                (("multi-conn",), ("multi-conn-mode=disable",), ()),
                (("limit",), ("limit=1",), ()),
                (("nofilter",), (), ("--no-sr",)),
                (("nofilter",), (), ("--mask-handshake=0",))):
            with self.subTest(filters[0], options=options):
                uri = self.serve("file", "a.raw", *parameters, filters=filters, options=options)
                self.assertEqual(self.digest(uri), sha256("a.raw"))
                platter("convert", "-f", "raw", "-O", "raw", uri, "out.raw")
                self.assertEqual(sha256("out.raw"), sha256("a.raw"))
                os.unlink("out.raw")

    def test_odd_size(self):
        """The end of an export may lie anywhere, whatever the blocks are; qemu-img compares local files."""
        with open("a.raw", "r+b") as f:
            f.truncate(5 * MIB + 77)
            f.seek(5 * MIB - 10)
            f.write(b"the end" * 12)
            f.truncate(5 * MIB + 77)
        for parameters in ((), ("blocksize-minimum=512",)):
            uri = self.serve("file", "a.raw", *parameters, filters=["blocksize-policy"])
            platter("convert", "-f", "raw", "-O", "raw", uri, "out.raw")
            self.assertEqual(sha256("out.raw"), sha256("a.raw"))

    def test_export_name(self):
        """By URI and by key; one that is not there."""
        server = self.serve_qemu("a.raw", "raw", "-r", export="the disk")
        socket = server.split("socket=")[1]
        self.assertEqual(self.digest(f"nbd+unix:///the%20disk?socket={socket}"), sha256("a.raw"))
        self.refuse("info", "-f", "raw", f"nbd+unix:///other?socket={socket}", says="cannot connect: .*export")
        for uri in (f"nbd+unix:///?socket={socket}", f"nbd+unix:///other?socket={socket}"):
            done = platter("digest", "--algorithm=sha256", "-f", "raw", "--place", "export=the disk", uri)
            self.assertEqual(done.stdout.split()[0], sha256("a.raw"))
            self.refuse("info", "-f", "raw", "--place", "export=none", uri, says='refuses to give the export "none"')
        old = self.serve("file", "a.raw", options=["--oldstyle"])
        self.assertEqual(self.digest(old), sha256("a.raw"))
        self.refuse("info", "-f", "raw", "--place", "export=x", old, says="too old")

    def test_connections(self):
        """As many as help, where the server allows it; one for what is small."""
        log = os.path.abspath("log")
        full = f"data=0x77*{SIZE}"
        uri = self.serve("data", full, f"logfile={log}", "delay-read=20ms", filters=["log", "delay"])

        def count(*argv):
            before = self.text(log).count(" Connect ")
            platter(*argv)
            return self.text(log).count(" Connect ") - before

        copy = ("convert", "-f", "raw", "-O", "raw")
        self.assertEqual(count("info", "-f", "raw", uri), 1)
        self.assertEqual(count(*copy, uri, "out.raw"), 4)
        self.assertEqual(count(*copy, uri + "&connections=2", "out.raw"), 2)
        alone = self.serve("data", full, f"logfile={log}", "delay-read=20ms", "multi-conn-mode=disable",
                           filters=["log", "delay", "multi-conn"])
        self.assertEqual(count(*copy, alone, "out.raw"), 1)

    def test_many_at_once(self):
        """Requests wait side by side, on one connection as well: 24 of them at 200 ms each."""
        for more in ("", "&connections=1"):
            uri = self.serve("data", f"data=0x77*{SIZE}", "delay-read=200ms", filters=["delay"]) + more
            start = time.monotonic()
            platter("convert", "-f", "raw", "-O", "raw", uri, "out.raw")
            self.assertLess(time.monotonic() - start, 2.5, more)


class Write(NbdCase):
    def check(self, uri, fmt="raw", raw="a.raw"):
        qemu_img("compare", "-f", "raw", "-F", fmt, raw, uri)
        self.assertEqual(self.digest(uri, fmt), sha256(raw))

    def test_servers(self):
        """Over something else, so that what is zero must be made so; by all ways there are to do it."""
        qemu_img("convert", "-O", "vmdk", "a.raw", "a.vmdk")
        for filters, parameters, options in (
                (("nofilter",), (), ()),
                (("blocksize-policy",), ("blocksize-minimum=4096", "blocksize-maximum=64K",
                                         "blocksize-error-policy=error"), ()),
                (("nozero",), ("zeromode=none",), ()),
                (("error",), ("error-zero=EINVAL", "error-zero-rate=100%"), ()),
                (("multi-conn",), ("multi-conn-mode=disable",), ()),
                (("fua",), ("fuamode=emulate",), ()),
                (("noextents",), (), ("--no-sr",))):
            for new in ((), ("-n",)):
                with self.subTest(filters[0], new=new):
                    uri = self.memory(SIZE, *parameters, full=True, filters=filters, options=options)
                    platter("convert", *new, "-f", "vmdk", "-O", "raw", "a.vmdk", uri)
                    self.check(uri)

    def test_unaligned(self):
        """Requests that begin and end inside of blocks change nothing beside them."""
        uri = self.memory(4 * MIB, "blocksize-minimum=64K", "blocksize-preferred=64K", "blocksize-error-policy=error", full=True,
                          filters=["blocksize-policy"])
        rng = random.Random(3)
        shadow = bytearray(b"\x55" * (4 * MIB))
        lines = []
        with open("noise", "wb") as f:
            f.write(noise := rng.randbytes(512 * KIB))
        for _ in range(60):
            length = 512 * rng.choice([1, 3, 100, 128, 300, 700])
            off = rng.randrange(0, (4 * MIB - length) // 512 + 1) * 512
            verb = rng.choice(["write", "write", "zero", "unmap"])
            start = rng.randrange(len(noise) - length) if verb == "write" else 0
            lines.append(f"{verb} {off} {length}" + (f" {start}" if verb == "write" else ""))
            shadow[off:off + length] = noise[start:start + length] if verb == "write" else bytes(length)
        run(os.environ["POKE"], uri, "raw", "noise", input="\n".join(lines) + "\n")
        with open("shadow", "wb") as f:
            f.write(shadow)
        self.check(uri, raw="shadow")

    def test_qcow2_inside(self):
        """A new image inside of an export, written in place, checked and made larger by both."""
        uri = self.memory(2 * SIZE)
        platter("convert", "-f", "raw", "-O", "qcow2", "a.raw", uri)
        self.check(uri, "qcow2")
        self.poke(uri, "qcow2", "a.raw", 5)
        self.check(uri, "qcow2")
        platter("resize", "-f", "qcow2", uri, "32M")
        platter("snapshot", "-c", "one", uri)
        platter("check", "-f", "qcow2", uri)
        qemu_img("check", "-f", "qcow2", uri)
        qemu_io(uri, "qcow2", "read -P 0 24M 8M")

    def test_create(self):
        """Over what is there, which nothing of the new disk shows; what grows finds no room."""
        uri = self.memory(SIZE, full=True)
        with open("secret", "w") as f:
            f.write("word")
        secret = ("--object", "secret,id=s,file=secret")
        for fmt, more in (("qcow2", ()), ("luks", (*secret, "-o", "key-secret=s,iter-time=10")), ("raw", ())):
            platter("create", "-q", "-f", fmt, *more, uri, "16M")
            self.assertIn(f"file format: {fmt}", platter("info", *(() if fmt != "raw" else ("-f", "raw")), uri).stdout)
        with open("zeros", "wb") as f:
            f.truncate(16 * MIB)
        platter("convert", "-f", "raw", "-O", "raw", uri, "got.raw")
        run("cmp", "-n", 16 * MIB, "zeros", "got.raw")
        for fmt in ("qcow", "vmdk"):
            self.refuse("create", "-f", fmt, uri, "1M", says="has a size of its own")

    def test_random_raw(self):
        uri = self.memory(SIZE)
        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", uri)
        self.poke(uri, "raw", "a.raw", 11)
        self.check(uri)

    def test_commit(self):
        """Into a base on a server, raw and qcow2; the overlay is a local file."""
        for fmt in ("raw", "qcow2"):
            uri = self.memory(2 * SIZE if fmt == "qcow2" else SIZE)
            platter("convert", "-f", "raw", "-O", fmt, "a.raw", uri)
            platter("create", "-q", "-f", "qcow2", "-b", uri, "-F", fmt, "over.qcow2")
            with open("b.raw", "wb") as f, open("a.raw", "rb") as a:
                f.write(a.read())
            self.poke_over(uri, "b.raw")
            self.refuse("commit", "over.qcow2", says="--allow")
            platter("commit", "--allow", uri, "over.qcow2")
            self.check(uri, fmt, "b.raw")
            os.unlink("over.qcow2")

    def poke_over(self, uri, shadow):
        qemu_io("over.qcow2", "qcow2", "write -P 9 1M 64k", "write -z 3M 1M")
        with open(shadow, "r+b") as f:
            f.seek(MIB)
            f.write(b"\x09" * (64 * KIB))
            f.seek(3 * MIB)
            f.write(bytes(MIB))

    def test_qemu_nbd(self):
        """A qcow2 that is served as a raw disk."""
        qemu_img("create", "-q", "-f", "qcow2", "t.qcow2", "24M")
        uri = self.serve_qemu("t.qcow2", "qcow2", "--discard=unmap")
        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", uri)
        self.servers.pop().stop()
        qemu_img("compare", "-f", "raw", "-F", "qcow2", "a.raw", "t.qcow2")
        qemu_img("check", "t.qcow2")

    def test_zero_and_unmap(self):
        """What the log of the server says: zeros with and without holes, flushes."""
        log = os.path.abspath("log")
        uri = self.memory(SIZE, f"logfile={log}", filters=["log"])
        with open("pattern", "wb") as f:
            f.write(b"x" * 4096)
        run(os.environ["POKE"], uri, "raw", "pattern",
            input="zero 0 1048576\nunmap 1048576 1048576\ndiscard 2097152 1048576\nflush\n")
        said = self.text(log)
        self.assertRegex(said, r"Zero id=\d+ offset=0x0 count=0x100000 trim=0")
        self.assertRegex(said, r"Zero id=\d+ offset=0x100000 count=0x100000 trim=1")
        self.assertRegex(said, r"Trim id=\d+ offset=0x200000 count=0x100000")
        self.assertRegex(said, r"Flush id=")

    def test_bench(self):
        platter("bench", "-f", "raw", "-w", "-c", "500", "-d", "32", self.memory(SIZE))

    def test_refused(self):
        """What cannot be: the export is left as it is."""
        uri = self.memory(SIZE)
        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", uri)
        with open("large.raw", "wb") as f:
            f.truncate(SIZE + 512)
        for new in ((), ("-n",)):
            self.refuse("convert", *new, "-f", "raw", "-O", "raw", "large.raw", uri, says=f"{SIZE}.*{SIZE + 512}")
            self.refuse("convert", *new, "-f", "raw", "-O", "raw", uri, uri, says="is the source itself")
        self.refuse("resize", "-f", "raw", uri, "32M", says="does not let it grow")
        self.refuse("resize", "-f", "raw", "--shrink", uri, "1M", says="cannot be made to have 1048576")
        self.refuse("create", "-f", "vmdk", uri, "1M", says="has a size of its own")
        folder = os.path.basename(self.dir)
        other = uri.replace(folder, f"{folder}/../{folder}")
        self.refuse("convert", "-n", "-f", "raw", "-O", "raw", uri, other, says="is the source itself")
        self.check(uri)
        only = self.serve("file", "a.raw", options=["-r"])
        self.refuse("convert", "-n", "-f", "raw", "-O", "raw", "large.raw", only, says="only be read")
        self.refuse("info", "nbd://", says="cannot connect")
        self.refuse("info", "nbd+vsock://x", says="no kind of place")
        self.refuse("info", unix_uri("none"), says="cannot connect: .*No such file")
        self.refuse("info", uri + "&connections=0", says="connections")
        for more, words in (("&conections=2", 'parameter "conections", which is not known'),
                            ("&connections", 'parameter "connections"'), ("&=x", 'parameter ""'),
                            ("&tls-pks-file=word", 'parameter "tls-pks-file"')):
            self.assertNotIn("word", self.refuse("info", uri + more, says=words).stderr.split(":", 3)[3])
        self.refuse("info", uri.replace("///", "///a%00b"), says="NUL")
        self.refuse("info", "nbd:localhost:10809", says="nbd://HOST:PORT/EXPORT")
        spec = {"type": "raw", "stream": {"type": "nbd", "uri": uri + "&timeout=5"}}
        self.refuse("info", json.dumps(spec), says='parameter "timeout".* keys of their own')
        self.assertIn("raw", platter("info", "-f", "raw", uri.replace("nbd+unix", "NBD+Unix")).stdout)


class Faults(NbdCase):
    def test_answers(self):
        """An error of the server is told with what was asked, and where."""
        gate = os.path.abspath("gate")
        full = ("data", f"data=0x55*{SIZE}")
        for request, code, text, verb in (("pread", "EIO", "Input/output error", "read"),
                                          ("pread", "ENOMEM", "Cannot allocate memory", "read"),
                                          ("pwrite", "ENOSPC", "No space left", "write"),
                                          ("pwrite", "EPERM", "not permitted", "write"),
                                          ("zero", "EIO", "Input/output error", "zero")):
            uri = self.serve(*full, f"error-{request}={code}", f"error-{request}-rate=30%",
                             f"error-{request}-file={gate}", filters=["error"])
            says = rf"cannot {verb} \d+ bytes at offset \d+: the server answers: .*{text}"
            open(gate, "w").close()
            if request == "pread":
                self.refuse("convert", "-f", "raw", "-O", "raw", uri, "out.raw", says=says)
                self.assertFalse([f for f in os.listdir(".") if "out.raw" in f])
            else:
                self.refuse("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", uri, says=says)
            os.unlink(gate)
            platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", uri)
            self.assertEqual(self.digest(uri), sha256("a.raw"))

    def begin(self, *argv):
        return subprocess.Popen([PLATTER, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process, code, says, most):
        start = time.monotonic()
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        if process.returncode != code or "Sanitizer" in err or "runtime error:" in err:
            raise Failed(f"{process.args} ended with {process.returncode}, not {code}:\n{err}")
        self.assertRegex(err, says)
        self.assertLess(time.monotonic() - start, most)

    def test_killed(self):
        """The server goes away half way, both directions, with one connection and several."""
        for more in ("", "&connections=1"):
            server = nbdkit("data", f"data=0x55*{SIZE}", "rate=40M", filters=["rate"])
            self.servers.append(server)
            process = self.begin("convert", "-f", "raw", "-O", "raw", server.uri + more, "out.raw")
            time.sleep(0.4)
            server.kill()
            self.end(process, 1, r"cannot read \d+ bytes at offset \d+: .*(closed|disconnect|reset|shut)", 10)
            self.assertFalse([f for f in os.listdir(".") if "out.raw" in f])
            server = nbdkit("memory", f"size={2 * SIZE}", "rate=40M", filters=["rate"])
            self.servers.append(server)
            process = self.begin("convert", "-n", "-S", "0", "-f", "raw", "-O", "raw", "a.raw", server.uri + more)
            time.sleep(0.4)
            server.kill()
            self.end(process, 1, r"cannot write \d+ bytes at offset \d+: .*(closed|disconnect|reset|shut|pipe)", 10)

    def serve_slowly(self):
        """One for each client: the server does not always outlive one that goes while it waits."""
        return self.serve("data", f"data=0x55*{SIZE}", "delay-read=60", "delay-write=60", filters=["delay"])

    def test_stalled(self):
        """A server that is stopped: given up after the timeout; or at once by who has enough."""
        server = nbdkit("data", f"data=0x55*{SIZE}")
        self.servers.append(server)
        uri = server.uri
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            self.end(self.begin("digest", "-f", "raw", uri + "&timeout=1"), 1,
                     "cannot connect: the server did not answer for 1 seconds", 10)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        self.end(self.begin("digest", "-f", "raw", self.serve_slowly() + "&timeout=1"), 1,
                 "cannot read .* did not answer for 1 seconds", 10)
        self.end(self.begin("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", self.serve_slowly() + "&timeout=1"), 1,
                 # Which ends this server at times, and that is told then.
                 "cannot (write|zero) .* (did not answer for 1 seconds|the server closed the connection)", 10)
        for argv in (("convert", "-f", "raw", "-O", "raw", "SLOW", "out.raw"),
                     ("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", "SLOW"),
                     ("compare", "-f", "raw", "-F", "raw", "a.raw", "SLOW")):
            slow = self.serve_slowly()
            process = self.begin(*(slow if arg == "SLOW" else arg for arg in argv))
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            self.end(process, -signal.SIGINT, "interrupted|cancelled", 10)
            self.assertFalse([f for f in os.listdir(".") if "out.raw" in f])


class Secure(NbdCase):
    def make_certificates(self, folder, name="localhost"):
        """A CA of our own, and a server's certificate by it; clients get the CA alone."""
        os.makedirs(f"{folder}/client")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run("openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=platter test", "-addext",
            "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca-cert.pem")
        run("openssl", "req", *key, "-subj", f"/CN={name}", "-keyout", f"{folder}/server-key.pem",
            "-out", f"{folder}/server.csr")
        with open(f"{folder}/ext", "w") as f:
            f.write(f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        run("openssl", "x509", "-req", "-days", "2", "-in", f"{folder}/server.csr", "-CA", f"{folder}/ca-cert.pem",
            "-CAkey", f"{folder}/ca-key.pem", "-CAcreateserial", "-extfile", f"{folder}/ext",
            "-out", f"{folder}/server-cert.pem")
        os.link(f"{folder}/ca-cert.pem", f"{folder}/client/ca-cert.pem")

    def test_certificates(self):
        self.make_certificates("pki")
        self.make_certificates("other")
        self.make_certificates("wrong", "elsewhere")
        uri = self.serve("file", "a.raw", options=["--tls=require", "--tls-certificates=pki"],
                         port=free_port(), scheme="nbds")
        self.assertEqual(self.digest(f"{uri}?tls-certificates=pki/client"), sha256("a.raw"))
        platter("convert", "-f", "raw", "-O", "raw", f"{uri}?tls-certificates=pki/client", "out.raw")
        self.assertEqual(sha256("out.raw"), sha256("a.raw"))
        self.refuse("info", "-f", "raw", f"{uri}?tls-certificates=other/client", says="cannot connect: .*certificate")
        none = {**os.environ, "HOME": self.dir}
        done = platter("info", "-f", "raw", uri, code=1, env=none)
        self.assertIn("nothing says which certificate the server must have", done.stderr)
        platter("info", "-f", "raw", f"{uri}?tls-verify-peer=off", env=none)
        os.makedirs(".pki")
        os.symlink(f"{self.dir}/pki/client", ".pki/libnbd")
        platter("info", "-f", "raw", uri, env=none)
        self.refuse("info", "-f", "raw", uri.replace("nbds", "nbd"), says="cannot connect")
        wrong = self.serve("file", "a.raw", options=["--tls=require", "--tls-certificates=wrong"],
                           port=free_port(), scheme="nbds")
        self.refuse("info", "-f", "raw", f"{wrong}?tls-certificates=wrong/client", says="cannot connect: .*certificate")
        platter("info", "-f", "raw", f"{wrong}?tls-certificates=wrong/client&tls-verify-peer=off")

    def test_shared_keys(self):
        """Both ways; another key, a user who is not there, no TLS at all."""
        for name, text in (("keys", "alice:" + "5a" * 32), ("bad", "alice:" + "66" * 32),
                           ("bob", "bob:" + "5a" * 32)):
            with open(f"{name}.psk", "w") as f:
                f.write(text + "\n")
        uri = self.serve("memory", f"size={SIZE}", options=["--tls=require", "--tls-psk=keys.psk"],
                         scheme="nbds+unix").replace(":///", "://alice@/")
        good = uri + "&tls-psk-file=keys.psk"
        platter("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", good)
        self.assertEqual(self.digest(good), sha256("a.raw"))
        platter("compare", "-f", "raw", "-F", "raw", good + "&connections=1", "a.raw")
        for bad in (uri + "&tls-psk-file=bad.psk", uri.replace("alice", "bob") + "&tls-psk-file=bob.psk",
                    uri + "&tls-psk-file=none.psk"):
            done = self.refuse("info", "-f", "raw", bad, says="cannot connect: ")
            self.assertNotIn("5a5a", done.stderr)
        plain = self.memory(SIZE, scheme="nbds+unix")
        self.refuse("info", "-f", "raw", plain + "&tls-psk-file=keys.psk", says="cannot connect: .*TLS")


if __name__ == "__main__":
    main()
