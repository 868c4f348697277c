# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Ctrl-C and kill in the midst of several disks, or of an archive that is made: nothing that looks
# finished is left, a target that was there is as it was, and the program ends by the signal.
data 2M a.raw 1
data 2M b.raw 2
archive x.vma -c conf=text a=a.raw b=b.raw
python3 - <<'END'
import os, signal, subprocess, time


def content():
    return {p: open(p, "rb").read() for d, _, names in os.walk(".") for p in [os.path.join(d, n) for n in names]}


def interrupted(number, *args):
    before = content()
    p = subprocess.Popen(["platter", *args, "-q", "-r", "200k"], stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    time.sleep(1)
    assert p.poll() is None, (args, "ended by itself", p.stderr.read())
    p.send_signal(number)
    assert p.wait(timeout=20) == -number, (args, p.returncode)
    assert content() == before, (args, sorted(content()))
    print(args[0], "ended by", number.name, p.stderr.read().strip())


for name in "old.vma", "old.vma.zst":
    open(name, "w").write("as it was")
for number, fmt, targets in (signal.SIGINT, "raw", ["old.vma"]), (signal.SIGTERM, "qcow2", ["new.vma", "old.vma.zst"]):
    interrupted(number, "extract", "-O", fmt, "-o", "new", "x.vma")
    assert not os.path.exists("new")
    for target in targets:
        interrupted(number, "archive", "create", target, "-d", "a=a.raw", "-d", "b=b.raw")
END
