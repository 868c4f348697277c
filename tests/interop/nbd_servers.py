# SPDX-License-Identifier: MIT
"""NBD servers for the tests: nbdkit and qemu-nbd, on sockets in the test's own folder (or on a port of
loopback that the kernel chose). They end with the test, also when that is killed (nbdkit)."""
import os
import socket
import subprocess
import time

from peers import Failed


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server that runs; `name` is that of its socket."""

    count = 0

    def __init__(self, argv, ready, uri, log):
        self.uri = uri
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                with open(log, errors="replace") as said:
                    raise Failed(f"{' '.join(argv)}\ndid not start: {said.read()}")
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def own_name():
    Server.count += 1
    return f"server{Server.count}"


def unix_uri(name, export="", scheme="nbd+unix"):
    return f"{scheme}:///{export}?socket={os.path.abspath(name)}.sock"


def nbdkit(*args, options=(), filters=(), port=None, scheme="nbd+unix", name=None):
    """nbdkit with a plugin and its parameters: on a socket, or on a port; `name`: in place of one that was killed."""
    for left in (f"{name}.pid", f"{name}.sock") if name else ():
        if os.path.exists(left):
            os.unlink(left)
    name = name or own_name()
    argv = ["nbdkit", "-f", "--exit-with-parent", "-P", f"{name}.pid", *options,
            *(f"--filter={f}" for f in filters)]
    argv += ["-i", "127.0.0.1", "-p", str(port)] if port else ["-U", f"{name}.sock"]
    argv += [str(a) for a in args]
    uri = f"{scheme}://localhost:{port}/" if port else unix_uri(name, scheme=scheme)
    return Server(argv, lambda: os.path.exists(f"{name}.pid"), uri, f"{name}.log")


def qemu_nbd(image, fmt, *options, export=""):
    """qemu-nbd with an image; several clients, one after the other or at once."""
    name = own_name()
    argv = ["qemu-nbd", "-t", "-e", "8", "--pid-file", f"{os.path.abspath(name)}.pid",
            "-k", f"{os.path.abspath(name)}.sock", "-f", fmt, "-x", export, *options, image]
    return Server(argv, lambda: os.path.exists(f"{name}.pid"), unix_uri(name, export), f"{name}.log")
