# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Whatever bit of a compressed archive is wrong: what a salvage gives is right wherever it says neither
# that it is missing nor that it may be wrong; and without one all is right or nothing is there.
data 1M a.raw 1
truncate -s 1200K a.raw
repeated 700K text >b.raw
archive x.vma -c conf=text -p 5 -s 3 a=a.raw b=b.raw
python3 - <<'END'
import json, os, random, shutil, subprocess
random = random.Random(5)
good = {name: open(name + ".raw", "rb").read() for name in "ab"}
whole = open("x.vma", "rb").read()


def pack(program, size):
    parts = [whole[at:at + size] for at in range(0, len(whole), size)]
    return b"".join(subprocess.run(program, input=p, capture_output=True, check=True).stdout for p in parts)


def is_told(ranges, at):
    return any(r["offset"] <= at < r["offset"] + r["length"] for r in ranges)


def judge(how):
    run = subprocess.run(["platter", "extract", "--salvage", "--output=json", "-o", "out", "bad"],
                         capture_output=True)
    assert run.returncode == 4, (how, run)
    for disk in json.loads(run.stdout)["disks"]:
        got, want = open(disk["target"], "rb").read(), good[disk["name"]]
        assert len(got) == len(want), how
        for at in range(0, len(want), 4096):
            if got[at:at + 4096] != want[at:at + 4096]:
                assert is_told(disk["holes"] + disk["doubts"], at), (how, disk["name"], at)
    shutil.rmtree("out")
    assert subprocess.run(["platter", "extract", "-q", "-o", "none", "bad"],
                          capture_output=True).returncode == 1, how
    assert not os.path.exists("none"), how


# In every other one a bit is wrong in front of where it is cut off: only the checksum knew.
for program in ["zstd", "-qc"], ["gzip", "-nc"], ["gzip", "-1nc"], ["xz", "-0c"], ["bzip2", "-1c"]:
    for size in 60000, 400000, 2 << 20:
        packed = pack(program, size)
        for i in range(4):
            at, bit = random.randrange(len(packed) // 8, len(packed) - 20), random.randrange(8)
            wreck = bytearray(packed)
            wreck[at] ^= 1 << bit
            if i % 2:
                del wreck[min(at + 8192 + random.randrange(size), len(packed) - 1):]
            open("bad", "wb").write(wreck)
            judge((program, size, at, bit, len(wreck)))
END
