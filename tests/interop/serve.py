# SPDX-License-Identifier: MIT
"""platter serve and the plugin of nbdkit, used by programs of others: nbdinfo, nbdcopy, qemu-img, qemu-io.

A plugin with a sanitizer needs its library in nbdkit, which has none: a script called nbdkit, found
first, sees to that.
"""
import json
import os
import pty
import random
import select
import signal
import subprocess
import time

from nbd_servers import free_port, nbdkit
from peers import KIB, MIB, PLATTER, Case, Failed, main, make_content, platter, qemu_img, qemu_io, run, sha256

PLUGIN = os.environ["PLATTER_NBDKIT_PLUGIN"]
CALM = os.environ["CALM"]
SIZE = 6 * MIB + 512 * 3
IMAGES = {  # name: (format, what makes it of disk.raw)
    "a.qcow2": ("qcow2", ["-O", "qcow2"]),
    "packed.qcow2": ("qcow2", ["-c", "-O", "qcow2"]),
    "a.qcow": ("qcow", ["-O", "qcow"]),
    "sparse.vmdk": ("vmdk", ["-O", "vmdk"]),
    "stream.vmdk": ("vmdk", ["-O", "vmdk", "-o", "subformat=streamOptimized"]),
}


def wrap_nbdkit(folder):
    """Puts a nbdkit that can load the plugin in front of the others; the old PATH."""
    path = os.environ["PATH"]
    linked = [line.split() for line in run("ldd", PLUGIN).stdout.splitlines()]
    libraries = [words[2] for words in linked if "san.so" in words[0]][:1]
    if libraries:
        # Whose exceptions the sanitizer looks for when it starts, and Ceph's library throws some.
        libraries += [words[2] for words in linked if "libstdc++" in words[0]]
        real = run("sh", "-c", "command -v nbdkit").stdout.strip()
        os.mkdir(f"{folder}/bin")
        # nbdkit leaves some memory of its own, and is below all that we allocate: so who allocated is
        # told by one name alone, and leaks are forgiven where that is nbdkit, or Ceph.
        with open(f"{folder}/bin/not-ours", "w") as f:
            f.write("leak:/bin/nbdkit\nleak:librados.so\nleak:librbd.so\nleak:libceph-common.so\n")
        with open(f"{folder}/bin/nbdkit", "w") as f:
            f.write("#!/bin/sh\nexport ASAN_OPTIONS=abort_on_error=1:detect_leaks=1:malloc_context_size=2\n"
                    f"export LSAN_OPTIONS=suppressions={folder}/bin/not-ours:print_suppressions=0\n"
                    f'LD_PRELOAD={":".join([*libraries, CALM])} exec {real} "$@"\n')
        os.chmod(f"{folder}/bin/nbdkit", 0o755)
        os.environ["PATH"] = f"{folder}/bin:{path}"
    return path


def wait_until(done, what):
    until = time.monotonic() + 30
    while not done():
        if time.monotonic() > until:
            raise Failed(f"not yet: {what}")
        time.sleep(0.02)


def is_there(pid):
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Terminal:
    """What somebody at a terminal sees and types."""

    def __init__(self, fd):
        self.fd = fd
        self.seen = ""

    def until(self, text):
        end = time.monotonic() + 30
        while text not in self.seen:
            if not select.select([self.fd], [], [], end - time.monotonic())[0]:
                raise Failed(f"no {text}: {self.seen}")
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError as e:  # nobody is there any more
                raise Failed(f"no {text}: {self.seen}") from e

    def type(self, keys):
        os.write(self.fd, keys.encode())


class Serve:
    """platter serve while a block runs; ended as a service manager does it."""

    def __init__(self, *argv, code=0):
        self.argv = [PLATTER, "serve", *argv]
        self.code = code

    def __enter__(self):
        with open("serve.log", "w") as log:
            self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=log, text=True)
        self.uri = self.process.stdout.readline().strip()
        if not self.uri:
            self.process.wait(30)
            raise Failed(f"{self.argv}: {self.said()}")
        return self

    def export(self, name):
        return self.uri.replace("?", f"{name}?")

    def server(self):
        """The nbdkit behind it."""
        return int(run("pgrep", "-P", self.process.pid).stdout)

    def said(self):
        with open("serve.log", errors="replace") as log:
            return log.read()

    def __exit__(self, kind, *_):
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()
        if kind is None and (code != self.code or "Sanitizer" in self.said()):
            raise Failed(f"{self.argv} ended with {code}: {self.said()}")


class ServeCase(Case):
    def setUp(self):
        super().setUp()
        self.path = wrap_nbdkit(self.dir)
        make_content("disk.raw", SIZE, 7)

    def tearDown(self):
        os.environ["PATH"] = self.path
        super().tearDown()

    def make(self, name):
        platter("convert", "-f", "raw", *IMAGES[name][1], "disk.raw", name)
        return name

    def check_same(self, uri, raw="disk.raw"):
        qemu_img("compare", "-q", "-f", "raw", "-F", "raw", raw, uri)

    def info(self, uri):
        return json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]


class Read(ServeCase):
    def test_every_format(self):
        for name in IMAGES:
            with Serve(self.make(name)) as s:
                self.check_same(s.uri)
                run("nbdcopy", s.uri, "copy.raw")
                self.assertEqual(sha256("copy.raw"), sha256("disk.raw"), name)
                info = self.info(s.uri)
                self.assertEqual(info["is_read_only"], name == "stream.vmdk", name)
                self.assertEqual(info["export-size"], SIZE)
                self.assertTrue(info["can_multi_conn"])

    def test_wrapped_and_from_a_server(self):
        self.make("a.qcow2")
        run("gzip", "-k", "a.qcow2")
        with Serve("a.qcow2.gz") as s:
            self.check_same(s.uri)
        server = nbdkit("file", "a.qcow2")
        try:
            with Serve("-r", server.uri) as s:
                self.check_same(s.uri)
        finally:
            server.stop()

    def test_extents(self):
        """What the client is told is what the map has."""
        with Serve(self.make("a.qcow2")) as s:
            told = json.loads(run("nbdinfo", "--map", "--json", s.uri).stdout)
            own = json.loads(platter("map", "-U", "--output=json", "a.qcow2").stdout)
            zero = [(e["start"], e["length"]) for e in own if e["zero"]]
            ranges = [(e["offset"], e["length"]) for e in told if e["type"] == 3]
            self.assertEqual(ranges, zero)
            self.assertEqual(sum(e["length"] for e in told), SIZE)

    def test_names(self):
        """Specs in files, backing files that are allowed, colons in names."""
        self.make("a.qcow2")
        with open("spec.json", "w") as f:
            json.dump({"type": "qcow", "stream": {"type": "file", "file_path": f"{self.dir}/a.qcow2"}}, f)
        os.mkdir("over")
        qemu_img("create", "-q", "-f", "qcow2", "-b", f"{self.dir}/a.qcow2", "-F", "qcow2", "over/top:1.qcow2")
        platter("serve", "over/top:1.qcow2", code=1)
        for argv in (["json:spec.json"], ["--allow", ".", "over/top:1.qcow2"]):
            with Serve("-r", *argv) as s:
                self.check_same(s.uri)
        for name in ("-", "json:-"):
            self.assertIn("put it into a file", platter("serve", "-f", "raw", name, code=1).stderr)
        server = nbdkit("file", "a.qcow2")
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", server.uri, "-F", "qcow2", "remote.qcow2", str(SIZE))
        platter("serve", "remote.qcow2", code=1)
        with Serve("--allow", server.uri, "remote.qcow2") as s:
            self.check_same(s.uri)
        server.stop()

    def test_raw_is_not_guessed(self):
        done = platter("serve", "disk.raw", code=1)
        self.assertIn("if it is a raw disk, say so", done.stderr)
        with Serve("-f", "raw", "disk.raw") as s:
            self.check_same(s.uri)

    def test_damage(self):
        """An error with its reason, and the server goes on."""
        self.make("a.qcow2")
        offset = next(e["offset"] for e in json.loads(platter("map", "-U", "--output=json", "a.qcow2").stdout)
                      if e["data"] and e["start"] >= MIB)
        os.truncate("a.qcow2", offset + 512)
        with Serve("-r", "a.qcow2") as s:
            done = run("nbdcopy", s.uri, "null:", code=1)
            self.assertIn("Input/output error", done.stderr)
            qemu_io(s.uri, "raw", "read 0 512", options=["-r"])
            self.assertIn("a.qcow2", s.said())

    def test_encrypted(self):
        for name, text in (("key", "correct horse"), ("wrong", "battery")):
            with open(name, "w") as f:
                f.write(text)
        platter("convert", "-f", "raw", "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.iter-time=10",
                "--new-key-file", "key", "disk.raw", "e.qcow2")
        for keys in (["--key-file=key"], ["--key-file=wrong", "--key-file=key"],
                     ["--object", "secret,id=s,file=key"]):
            with Serve(*keys, "e.qcow2") as s:
                self.check_same(s.uri)
        platter("serve", "--key-file=wrong", "e.qcow2", code=1)
        done = platter("serve", "--key-file=key", "--exec", "ls -l /proc/self/fd/", "e.qcow2")
        self.assertNotIn("memfd:key", done.stdout)
        with_file = nbdkit(PLUGIN, "e.qcow2", "secret=+key")
        self.check_same(with_file.uri)
        with_file.stop()


class Views(ServeCase):
    def names(self, uri):
        return {e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", uri).stdout)["exports"]}

    def test_snapshots(self):
        """Each is an export beside the disk that is written to."""
        self.make("a.qcow2")
        platter("snapshot", "-c", "first", "a.qcow2")
        with Serve("a.qcow2") as s:
            qemu_io(s.uri, "raw", "write -P 7 0 1M", "write -z 2M 1M")
            self.assertEqual(self.names(s.uri), {"", "first"})
            self.check_same(s.export("first"))
            self.assertTrue(self.info(s.export("first"))["is_read_only"])
            self.assertFalse(self.info(s.uri)["is_read_only"])
            qemu_io(s.uri, "raw", "read -P 7 0 1M", "read -P 0 2M 1M")
            run("nbdinfo", s.export("second"), code=1)
            self.assertIn("second", s.said())
        with Serve("--view", "first", "a.qcow2") as s:
            self.check_same(s.uri)
            self.assertEqual(self.names(s.uri), {""})

    def test_view_first(self):
        """Whoever has a snapshot open does not keep out who comes to write."""
        self.make("a.qcow2")
        platter("snapshot", "-c", "first", "a.qcow2")
        server = nbdkit(PLUGIN, "a.qcow2")
        export = server.uri.replace("?", "first?")
        with subprocess.Popen(["qemu-io", "-r", "-f", "raw", export], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as reader:
            reader.stdin.write("read 0 512\n")
            reader.stdin.flush()
            while "read 512/512" not in reader.stdout.readline():
                self.assertIsNone(reader.poll())
            qemu_io(server.uri, "raw", "write -P 7 0 1M", "read -P 7 0 1M")
            reader.communicate("quit\n")
        self.check_same(export)
        server.stop()

    def test_archive(self):
        make_content("small.raw", MIB, 9)
        platter("archive", "create", "-q", "-f", "raw", "a.vma", "-d", "drive-one=disk.raw", "-d",
                "drive-two=small.raw")
        with Serve("a.vma") as s:
            self.assertEqual(self.names(s.uri), {"drive-one", "drive-two"})
            self.check_same(s.export("drive-one"))
            self.check_same(s.export("drive-two"), "small.raw")
            run("nbdinfo", s.uri, code=1)
            self.assertIn("is an archive of 2 disks", s.said())
        with Serve("a.vma@drive-two") as s:
            self.check_same(s.uri, "small.raw")


class Write(ServeCase):
    def random_io(self, uri, shadow, seed):
        """qemu-io, the same into a raw file; four connections of nbdcopy came before it."""
        rng = random.Random(seed)
        commands = []
        with open(shadow, "r+b") as f:
            for _ in range(60):
                length = rng.choice([512, 4 * KIB, 64 * KIB, 300 * KIB])
                off = rng.randrange((SIZE - length) // 512) * 512
                pattern, kind = rng.randrange(1, 256), rng.choice(["write", "write", "zero", "fua", "unmap"])
                f.seek(off)
                f.write(bytes([0 if kind in ("zero", "unmap") else pattern]) * length)
                options = {"zero": "-z", "unmap": "-z -u", "fua": f"-f -P {pattern}"}.get(kind, f"-P {pattern}")
                commands.append(f"write {options} {off} {length}")
                if rng.randrange(5) == 0:
                    commands.append("flush")
        qemu_io(uri, "raw", *commands)

    def test_every_format(self):
        for n, name in enumerate(("a.qcow2", "packed.qcow2", "a.qcow", "sparse.vmdk")):
            self.make(name)
            make_content("new.raw", SIZE, n)
            with Serve(name) as s:
                run("nbdcopy", "--connections=4", "--flush", "new.raw", s.uri)
                self.check_same(s.uri, "new.raw")
                self.random_io(s.uri, "new.raw", n)
                self.check_same(s.uri, "new.raw")
            self.check_written(name, IMAGES[name][0], "new.raw") if "qcow2" in name else \
                platter("compare", "-f", IMAGES[name][0], "-F", "raw", name, "new.raw")
            platter("check", "-q", name)

    def test_discard(self):
        with Serve(self.make("a.qcow2")) as s:
            qemu_io(s.uri, "raw", "discard 1M 2M", "discard 1000 1000")
            before = os.stat("a.qcow2").st_blocks
            qemu_io(s.uri, "raw", "write -z -u 3M 2M", "read -P 0 3M 2M")
        qemu_img("check", "a.qcow2")
        self.assertLessEqual(os.stat("a.qcow2").st_blocks, before)

    def test_others_are_kept_out(self):
        with Serve(self.make("a.qcow2")):
            done = qemu_img("info", "a.qcow2", code=1)
            self.assertIn("lock", done.stderr)
            platter("serve", "a.qcow2", code=1)
            platter("info", "-U", "a.qcow2")

    def test_read_only(self):
        with Serve("-r", self.make("a.qcow2")) as s:
            self.assertTrue(self.info(s.uri)["is_read_only"])
            with Serve("-r", "a.qcow2") as other:
                self.check_same(other.uri)
        with Serve("a.qcow2"), Serve("-U", "a.qcow2") as s:
            self.assertTrue(self.info(s.uri)["is_read_only"])
            self.check_same(s.uri)
        server = nbdkit(PLUGIN, "a.qcow2", options=["-r"])
        self.assertTrue(self.info(server.uri)["is_read_only"])
        qemu_img("info", "a.qcow2")
        server.stop()


class End(ServeCase):
    def test_command(self):
        """Its exit code is ours; it finds the disk; what it wrote is there when we end."""
        self.make("a.qcow2")
        for command, code in (("nbdinfo \"$uri\"; exit 5", 5), ("kill -9 $$", 137),
                              ("qemu-io -f raw -c 'write -P 9 0 1M' \"$uri\"; test -S \"$unixsocket\"", 0)):
            platter("serve", "--exec", command, "a.qcow2", code=code)
        qemu_io("a.qcow2", "qcow2", "read -P 9 0 1M")

    def test_signal_ends_all_of_a_command(self):
        """Also what its shell has started, and what stands still."""
        self.make("a.qcow2")
        for number, signals in enumerate(([signal.SIGTERM], [signal.SIGHUP], [signal.SIGSTOP, signal.SIGINT],
                                          [signal.SIGTERM, signal.SIGTERM])):
            stubborn = len(signals) == 2 and signals[0] == signal.SIGTERM
            command = f"{'trap : TERM;' if stubborn else ''} (sleep 300; true) & echo $!; while :; do sleep 300; done"
            ended = signal.SIGKILL if stubborn else signal.SIGTERM
            with Serve("--exec", command, "a.qcow2", code=128 + ended) as s:
                child = int(s.uri)  # what came instead of it
                for one in signals:
                    if one == signal.SIGSTOP:
                        os.kill(child, one)
                    else:
                        s.process.send_signal(one)
                    time.sleep(0.2)
                s.process.wait(30)
                wait_until(lambda: not is_there(child), f"round {number}")
        qemu_img("check", "a.qcow2")

    def at_terminal(self, command, talk):
        """platter serve in front of a terminal, in a job of its own as a shell starts it; its exit code."""
        leader, terminal = pty.fork()
        if leader == 0:
            try:
                os._exit(self.shell(command))
            except BaseException:  # pylint: disable=broad-except
                os._exit(99)
        try:
            talk(Terminal(terminal))
            return os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1])
        finally:
            os.close(terminal)

    def shell(self, command):
        """What a shell does: a job in front, told of when it stops, and then once more in front."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execv(PLATTER, [PLATTER, "serve", "--exec", command, "a.qcow2"])
        while True:
            how = os.waitpid(job, os.WUNTRACED)[1]
            if not os.WIFSTOPPED(how):
                return os.waitstatus_to_exitcode(how)
            if os.tcgetpgrp(0) != job:
                return 98  # not given back
            os.tcsetpgrp(0, os.getpgrp())
            print("stopped", flush=True)
            input()
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)

    def test_terminal(self):
        """A command reads what is typed, and has the keys."""
        self.make("a.qcow2")

        def ask(t):
            t.until("name?")
            t.type("one\n")
            t.until("hello one")
        self.assertEqual(self.at_terminal("printf name?; read x; echo hello $x; exit 7", ask), 7)

        def interrupt(t):
            t.until("here")
            t.type("\x03")
            t.until("caught")
        code = self.at_terminal("trap 'echo caught; exit 3' INT; echo here; while :; do sleep 0.01; done", interrupt)
        self.assertEqual(code, 3)

        def stop(t):
            t.until("here")
            t.type("\x1a")
            t.until("stopped")
            t.type("\n")
            t.type("two\n")
            t.until("hello two")
        self.assertEqual(self.at_terminal("echo here; while ! read x; do :; done; echo hello $x", stop), 0)

    def test_server_killed(self):
        with Serve(self.make("a.qcow2"), code=1) as s:
            qemu_io(s.uri, "raw", "write -P 9 0 1M")
            os.kill(s.server(), signal.SIGKILL)
            s.process.wait(30)
            self.assertIn("what was written last may be lost", s.said())
        platter("check", "-q", "a.qcow2", code={0, 3})

    def test_server_killed_beside_a_command(self):
        self.make("a.qcow2")
        done = platter("serve", "-r", "--exec", "pkill -KILL -f bin/nbdkit.*$unixsocket; sleep 0.3; echo on", "a.qcow2", code=1)
        self.assertIn("on", done.stdout)

    def test_killed(self):
        """The server ends with it, and all that it was given is durable then."""
        with Serve("-k", "here.sock", self.make("a.qcow2"), code=-9) as s:
            server = s.server()
            qemu_io(s.uri, "raw", "write -P 9 0 1M")
            s.process.kill()
            until = time.monotonic() + 30
            while os.path.exists(f"/proc/{server}") and time.monotonic() < until:
                time.sleep(0.02)
            self.assertFalse(os.path.exists(f"/proc/{server}"))
        qemu_img("check", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "read -P 9 0 1M")

    def test_socket_is_left_to_nobody(self):
        """Not by a server that ends, and one that was killed is in nobody's way; one that serves is."""
        with Serve("-k", "here.sock", self.make("a.qcow2"), code=-9) as s:
            s.process.kill()
        self.assertTrue(os.path.exists("here.sock"))
        with Serve("-k", "here.sock", "a.qcow2") as s:
            platter("serve", "-k", "here.sock", self.make("packed.qcow2"), code=1)
            self.check_same(s.uri)
        self.assertFalse(os.path.exists("here.sock"))

    def test_tcp_and_json(self):
        port = free_port()
        with Serve("--output=json", "-p", str(port), self.make("a.qcow2")) as s:
            told = json.loads("{" + "".join(s.process.stdout.readline() for _ in range(4)))
            self.assertEqual(told, {"uri": f"nbd://localhost:{port}", "read-only": False, "pid": s.process.pid})
            self.check_same(told["uri"])
            platter("serve", "-p", str(port), "-r", "-U", "a.qcow2", code=1)

    def test_tls(self):
        with open("keys.psk", "w") as f:
            f.write("alice:" + "5a" * 32 + "\n")
        with Serve("--tls-psk=keys.psk", self.make("a.qcow2")) as s:
            self.assertTrue(s.uri.startswith("nbds+unix:"))
            uri = s.uri.replace("://", "://alice@") + "&tls-psk-file=keys.psk"
            run("nbdcopy", uri, "copy.raw")
            self.assertEqual(sha256("copy.raw"), sha256("disk.raw"))
            run("nbdinfo", s.uri.replace("nbds", "nbd"), code=1)

    def test_wrong_usage(self):
        self.make("a.qcow2")
        for wrong in (["nothing.qcow2"], ["a.qcow2", "b.qcow2"], ["--tcp", "-k", "x.sock", "a.qcow2"], [],
                      ["-k", "x" * 200, "a.qcow2"], ["--view", "nothing", "a.qcow2"]):
            platter("serve", *wrong, code=1)
        for wrong in (["file=a.qcow2", "file=b.qcow2"], [], ["a.qcow2", "no-such=1"], ["a.qcow2", "memory=x"]):
            run("nbdkit", "-f", "-U", "-", PLUGIN, *wrong, "--run", "true", code=1)
        self.assertIn("platter_version=", run("nbdkit", PLUGIN, "--dump-plugin").stdout)


class Mount(ServeCase):
    def unmount(self):
        run("umount", "there")

    def wait_for_end(self):
        """Until nobody holds the image any more."""
        until = time.monotonic() + 30
        while qemu_img("info", "a.qcow2", code={0, 1}).returncode and time.monotonic() < until:
            time.sleep(0.02)

    def test_mounted(self):
        """Read, written, and whole when it is unmounted; then the next one."""
        self.make("a.qcow2")
        os.mkdir("there")
        done = platter("mount", "a.qcow2", f"{self.dir}/there")
        self.assertEqual(done.stdout.strip(), f"{self.dir}/there/disk.raw")
        self.assertEqual(sha256("there/disk.raw"), sha256("disk.raw"))
        for name in ("there/disk.raw", "disk.raw"):
            with open(name, "r+b") as f:
                f.seek(3 * MIB + 5)
                f.write(b"written by way of a file")
        platter("mount", "-r", "a.qcow2", "there", code=1)
        self.unmount()
        self.wait_for_end()
        self.check_written("a.qcow2", "qcow2", "disk.raw")
        # Whoever reads what it says learns at once that there is no more.
        run("sh", "-c", f"{PLATTER} mount -q -r a.qcow2 there 2>&1 | cat")
        try:
            with self.assertRaises(PermissionError):
                os.close(os.open("there/disk.raw", os.O_RDWR)) if os.geteuid() else \
                    self.fail_as_root("there/disk.raw")
            self.assertEqual(sha256("there/disk.raw"), sha256("disk.raw"))
        finally:
            self.unmount()

    def fail_as_root(self, name):
        fd = os.open(name, os.O_RDWR)
        try:
            os.pwrite(fd, b"x", 0)
        finally:
            os.close(fd)

    def test_foreground(self):
        """It ends when the file is unmounted, and by a signal."""
        self.make("a.qcow2")
        os.mkdir("there")
        for end in (lambda p: self.unmount(), lambda p: p.send_signal(signal.SIGTERM)):
            process = subprocess.Popen([PLATTER, "mount", "--foreground", "a.qcow2", "there"])
            until = time.monotonic() + 30
            while not os.path.exists("there/disk.raw") and time.monotonic() < until:
                time.sleep(0.02)
            end(process)
            self.assertEqual(process.wait(30), 0)
        self.assertEqual(os.listdir("there"), [])

    def test_refused(self):
        os.mkdir("there")
        self.make("a.qcow2")
        for why, *wrong in (["is no folder", "a.qcow2", "nowhere"], ["is no folder", "a.qcow2", "a.qcow2"],
                            ["an image and a folder", "a.qcow2"], ["cannot open for writing: No such file", "nothing", "there"],
                            ["if it is a raw disk", "disk.raw", "there"]):
            self.assertIn(why, platter("mount", *wrong, code=1).stderr)
        self.assertEqual(os.listdir("there"), [])


if __name__ == "__main__":
    main()
