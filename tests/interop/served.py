# SPDX-License-Identifier: MIT
"""Programs of ours that are started once and run by forks of that (tests/support/forked.c): a start
costs under sanitizers more than what most tests have it do. A run's descriptors, folder, environment
and end are its own, as if it had been started.
"""
import atexit
import os
import socket
import subprocess
import threading

PATIENCE = 300  # seconds
MOST = 100000  # bytes of a request
# What a program looks at when it starts, and not when it is forked.
EARLY = ("LD_PRELOAD", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS")


class Run(subprocess.CompletedProcess):
    """A run that has ended, with what it took."""

    def __init__(self, argv, answer, stdout, stderr):
        status, microseconds, self.kib = map(int, answer.split())
        self.cpu_seconds = microseconds / 1e6
        super().__init__(argv, os.waitstatus_to_exitcode(status), stdout, stderr)


class Server:
    """One program. It is started by the first run, and works in the limits that hold then."""

    def __init__(self, program):
        self.program = program
        self.socket = None
        self.free = threading.Lock()

    def start(self):
        self.early = [os.environ.get(name) for name in EARLY]
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen([self.program, "--served-by", str(theirs.fileno())],
                                            pass_fds=[theirs.fileno()], cwd="/")
        self.socket.settimeout(PATIENCE)
        atexit.register(self.stop)

    def stop(self):
        self.socket.close()
        self.process.wait()

    def takes(self, env):
        """Whether this environment is one for a fork."""
        return not self.socket or [env.get(name) for name in EARLY] == self.early

    def ask(self, request, descriptors):
        answer = b""
        try:
            socket.send_fds(self.socket, [request], descriptors)
            answer = self.socket.recv(100)
        except TimeoutError:
            self.process.kill()  # with which the run dies
            raise
        except BrokenPipeError:
            pass
        if not answer:
            raise AssertionError(f"{self.program} --served-by ended with {self.process.wait()}")
        return answer

    def run(self, argv, env, stdin):
        """None if another thread is running it, or these are too many words."""
        strings = [str(len(argv)), os.getcwd(), *argv, *(f"{k}={v}" for k, v in env.items())]
        request = os.fsencode("\0".join(strings) + "\0")
        if len(request) > MOST or not self.free.acquire(blocking=False):
            return None
        out, err = os.memfd_create("out"), os.memfd_create("err")
        try:
            if not self.socket:
                self.start()
            answer = self.ask(request, [stdin, out, err])
            return Run(argv, answer, content(out), content(err))
        finally:
            self.free.release()
            os.close(out)
            os.close(err)


def content(descriptor):
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


servers = {os.environ[name]: Server(os.environ[f"{name}_SERVED"])
           for name in ("PLATTER", "POKE") if f"{name}_SERVED" in os.environ}


def run(argv, stdin=0, env=None, input=None):
    """A run of one of these programs, or None: then it must be started for this."""
    server = servers.get(argv[0])
    env = os.environ if env is None else env
    if not server or not server.takes(env):
        return None
    if input is None:
        return server.run(argv, env, stdin if isinstance(stdin, int) else stdin.fileno())
    with open(os.memfd_create("in"), "w+b", buffering=0) as f:
        f.write(input.encode())
        f.seek(0)
        return server.run(argv, env, f.fileno())
