# SPDX-License-Identifier: MIT
"""A machine of QEMU with the small Debian of tools/make-machine as its guest, emulated: no KVM.

Its first serial port is the console; what comes out of that is kept, line by line. The second leads to
its only process (guest-init), which runs what it is told. All that is waited for has a limit.
"""
import re
import shlex
import socket
import subprocess
import threading
import time

from peers import Failed, told

PROGRAM = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
           "-machine", "pc,accel=tcg", "-smp", "1", "-m", "512"]
KERNEL = re.compile(r"Linux version ")  # the first thing it says
BOOT = 120  # seconds a guest may take to boot
WORD = 120  # and to do what it is told


def logged(uri, log):
    """A disk on a server, of whose writes there is a log (see replay.py)."""
    open(log, "w").close()
    return ["-blockdev", f"driver=nbd,node-name=server,server.type=unix,server.path={uri.split('socket=')[1]}",
            "-blockdev", f"driver=file,node-name=log,filename={log}",
            "-blockdev", "driver=blklogwrites,node-name=disk,file=server,log=log,discard=unmap",
            "-device", "virtio-blk-pci,drive=disk"]


def unchanged(place, fmt="raw"):
    """A disk that stays as it is: what is written to it is gone with the machine."""
    return ["-drive", f"if=virtio,id=disk,file={place},format={fmt},snapshot=on"]


class Guest:
    """A running machine with a disk, which is options of QEMU; switched off by the end of the block
    that began it. `kernel_at` is when its kernel said the first word, and `up_at` when it did what it
    was told, in seconds since the start."""

    def __init__(self, disk):
        console, their_console = socket.socketpair()
        agent, their_agent = socket.socketpair()
        argv = [*PROGRAM]
        for name, theirs in (("console", their_console), ("agent", their_agent)):
            argv += ["-chardev", f"socket,id={name},fd={theirs.fileno()}", "-serial", f"chardev:{name}"]
        argv += disk
        self.started = time.monotonic()
        self.program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace",
                                        pass_fds=[their_console.fileno(), their_agent.fileno()])
        their_console.close()
        their_agent.close()
        self.kernel_at = self.up_at = None
        self.lines = []
        self.console, self.agent = console, agent
        self.answers = agent.makefile("rb")
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        with self.console, self.console.makefile("rb") as console:
            for line in console:
                text = line.decode(errors="replace").rstrip()
                if self.kernel_at is None and KERNEL.search(text):
                    self.kernel_at = self.passed()
                self.lines.append(text)

    def passed(self):
        return time.monotonic() - self.started

    def __enter__(self):
        try:
            self.hear(BOOT, lambda: self.answers.readline(), "its first process")
            self.up_at = self.passed()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.power_off()
        finally:
            self.end()

    def end(self):
        self.program.kill()
        self.program.wait()
        self.listener.join()
        self.program.stdout.close()
        self.answers.close()
        self.agent.close()

    def failed(self, what):
        """What is known of a machine that does not do what it should; it ends."""
        code = self.program.poll()
        self.program.kill()
        self.listener.join()
        shown = "\n".join([*self.lines[-25:], self.program.stdout.read()])
        return Failed(f"the machine: {what} ({'it runs' if code is None else f'it ended with {code}'})\n{shown}")

    def hear(self, seconds, read, what):
        self.agent.settimeout(seconds)
        try:
            answer = read()
        except TimeoutError:
            raise self.failed(f"waited {seconds} s for {what}") from None
        if not answer:
            raise self.failed(f"no answer of {what}")
        return answer

    # ---- what it is told -----------------------------------------------------------------------

    def send(self, line):
        self.agent.sendall(line.encode() + b"\n")

    def answer(self, line, code=0, seconds=WORD):
        """The output of what was sent; `code` is the exit code that is right."""
        def read():
            said = self.answers.readline().split()
            return said and (int(said[0]), self.answers.read(int(said[1])).decode(errors="replace"))
        ended, text = self.hear(seconds, read, line)
        if ended != code:
            raise self.failed(told(subprocess.CompletedProcess([line], ended, text, "")))
        return text

    def do(self, line, **more):
        """Has a line run by a shell of the guest."""
        self.send(line)
        return self.answer(line, **more)

    def digests(self, *paths):
        """The SHA-256 of files, by their paths, as the guest reads them from its disk, not from
        memory."""
        self.do("sync; echo 3 >/proc/sys/vm/drop_caches")
        said = self.do(f"sha256sum {' '.join(map(shlex.quote, paths))}")
        return {line[66:]: line[:64] for line in said.splitlines()}

    def power_off(self):
        """As a machine is switched off: all is written, and the file system is clean."""
        self.do("sync; mount -o remount,ro /")
        self.send("echo o >/proc/sysrq-trigger")
        try:
            code = self.program.wait(BOOT)
        except subprocess.TimeoutExpired:
            raise self.failed("it does not switch itself off") from None
        said = self.program.stdout.read()
        if code != 0 or said.strip():
            raise Failed(f"the machine ended with {code}: {said}")
        broken = [line for line in self.lines if "EXT4-fs error" in line or "I/O error" in line]
        if broken:
            raise Failed("the guest had errors:\n" + "\n".join(broken[:20]))
