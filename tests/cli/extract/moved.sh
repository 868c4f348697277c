# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Bytes that are gone from an archive, or came into it, move all that stands behind them: what a salvage
# gives is right wherever it says neither that it is missing nor that it may be wrong.
data 2M a.raw 1
archive x.vma -c conf=text -p 5 a=a.raw
python3 - <<'END'
import json, shutil, subprocess
good, whole = open("a.raw", "rb").read(), open("x.vma", "rb").read()
first = whole.index(b"VMAE")
length = 512 + 5 * 65536


def is_told(disk, at):
    return any(r["offset"] <= at < r["offset"] + r["length"] for r in disk["holes"] + disk["doubts"])


def judge(how, wreck, doubts):
    open("bad", "wb").write(wreck)
    run = subprocess.run(["platter", "extract", "--salvage", "--output=json", "-o", "out", "bad"],
                         capture_output=True)
    assert run.returncode == 4, (how, run)
    disk, = json.loads(run.stdout)["disks"]
    got = open(disk["target"], "rb").read()
    assert len(got) == len(good), how
    for at in range(0, len(good), 4096):
        assert got[at:at + 4096] == good[at:at + 4096] or is_told(disk, at), (how, at)
    assert bool(disk["doubts"]) == doubts, (how, disk)
    shutil.rmtree("out")


# In the midst of the second extent, so that the header of the third goes as well, or stands elsewhere.
middle = first + length + 512 + 2 * 65536
for n in 1, 7, 512, 4096, 65536, 196608, 4 * 65536, 4 * 65536 + 4608:
    judge(("gone", n), whole[:middle] + whole[middle + n:], True)
for n in 1, 7, 8, 9, 512, 4096, 65536:
    judge(("put in", n), whole[:middle] + bytes([255]) * n + whole[middle:], True)
# In the last extent: more follows it than should.
last = first + 6 * length + 512 + 4096
for n in 1, 100, 511, 512, 4096:
    judge(("at the end", n), whole[:last] + whole[last - n:], True)
# Headers that were written over where they stand are no reason to doubt what is in front of them, ...
third = first + 2 * length
for bytes_gone in bytes(512), bytes([255]) * 512:
    judge("over a header", whole[:third] + bytes_gone + whole[third + 512:], False)
judge("over two", whole[:third] + bytes(512) + whole[third + 512:third + length] + bytes(512) +
      whole[third + length + 512:], False)
# ... and neither are one of which something is left, or zeros behind the end.
judge("some of one", whole[:third + 4] + bytes(500) + whole[third + 504:], False)
judge("zeros", whole + bytes(5000), False)
END
