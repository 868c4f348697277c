# SPDX-License-Identifier: MIT
"""A real machine of QEMU without a guest of its own: its firmware runs, or nothing does (paused).

It is led over QMP. What is written to its disks goes through the running block layer, as what a guest
writes does. It ends with the block that began it, by `quit` if it was not killed.
"""
import json
import os
import select
import socket
import subprocess
import threading

from peers import Failed, MIB, sha256

MEMORY = 16 * MIB
PATIENCE = 300  # seconds until a machine that hangs is killed, so that the test fails
LOG = "machine.log"

PROGRAM = ["stdbuf", "-oL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
           "-machine", "pc,accel=tcg", "-m", str(MEMORY // MIB)]


class Refused(Failed):
    """The machine runs, and answered with an error."""


class Machine:
    """A running program. `disks` are what -drive takes, with file= and format= left to say where a
    plain name is given: that is a qcow2. They are called drive0, drive1 ..."""

    def __init__(self, *disks, paused=False, options=()):
        ours, theirs = socket.socketpair()
        argv = [*PROGRAM, "-chardev", f"socket,id=qmp,fd={theirs.fileno()}",
                "-mon", "chardev=qmp,mode=control", *(["-S"] if paused else []), *map(str, options)]
        for number, disk in enumerate(disks):
            name = disk if "=" in disk else f"file={disk},format=qcow2"
            argv += ["-drive", f"if=ide,id=drive{number},{name}"]
        with open(LOG, "wb") as log:
            self.program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=[theirs.fileno()])
        theirs.close()
        self.socket = ours
        self.lines = ours.makefile("r", encoding="utf-8")
        self.events = []
        self.read_to = 0  # of the log
        self.watchdog = threading.Timer(PATIENCE, self.program.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    @property
    def pid(self):
        return self.program.pid

    def __enter__(self):
        try:
            self.hear()  # the greeting
            self.do("qmp_capabilities")
            self.do("query-status")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is None and self.program.poll() is None:
            self.quit()
        self.end()

    def end(self):
        self.watchdog.cancel()
        self.program.kill()
        self.program.wait()
        self.lines.close()
        self.socket.close()

    # ---- QMP -----------------------------------------------------------------------------------

    def said(self):
        """What it printed since the last time."""
        with open(LOG, "rb") as log:
            log.seek(self.read_to)
            text = log.read()
        self.read_to += len(text)
        return text.decode(errors="replace")

    def send(self, command, **arguments):
        """Does not wait for the answer."""
        message = {"execute": command,
                   "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self.socket.sendall(json.dumps(message).encode())

    def hear(self):
        try:
            line = self.lines.readline()
        except OSError:
            line = ""
        if not line:
            code = self.program.wait()
            raise Failed(f"the machine ended with {code}: {self.said()}")
        return json.loads(line)

    def answered(self, within):
        """Whether there is something to hear, or will be in so many seconds."""
        return bool(select.select([self.socket], [], [], within)[0])

    def answer(self):
        """The next answer; events before it are noted."""
        while True:
            message = self.hear()
            if "event" in message:
                self.events.append(message["event"])
            elif "error" in message:
                raise Refused(message["error"]["desc"])
            else:
                return message["return"]

    def do(self, command, **arguments):
        self.send(command, **arguments)
        return self.answer()

    def human(self, line):
        """A command of the human monitor, which says nothing if all is well."""
        said = self.do("human-monitor-command", command_line=line)
        if said.strip():
            raise Refused(said)

    def running(self):
        return self.do("query-status")["running"]

    def quit(self):
        self.do("quit")
        code = self.program.wait()
        if code != 0:
            raise Failed(f"the machine ended with {code}: {self.said()}")

    def kill(self):
        self.program.kill()
        self.program.wait()

    # ---- disk and memory -----------------------------------------------------------------------

    def io(self, command, drive="drive0"):
        """A command of qemu-io, carried out by the machine."""
        self.said()
        self.human(f'qemu-io {drive} "{command}"')
        said = self.said()
        for word in ("rror", "failed", "invalid", "can't"):
            if word in said:
                raise Refused(f"{command}: {said}")
        if command.split()[0] in ("read", "write", "discard") and "ops" not in said:
            raise Failed(f"{command}: {said}")

    def memory(self):
        """The digest of all its memory; only of a machine that is stopped is that one moment's."""
        path = os.path.abspath("memory")
        self.do("pmemsave", val=0, size=MEMORY, filename=path)
        digest = sha256(path)
        os.unlink(path)
        return digest


def start_fails(*disks, options=()):
    """Starts a machine that must refuse to; what it said."""
    try:
        with Machine(*disks, paused=True, options=options):
            pass
    except Refused:
        raise
    except Failed as failed:
        return str(failed)
    raise Failed(f"the machine started with {disks} {options}")
