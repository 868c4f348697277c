# SPDX-License-Identifier: MIT
"""make_archive FILE [-c NAME=TEXT]... [-s SEED] [-x N]... [-t N]... [-p SLOTS] [[ID:]NAME=RAW]...: a
VMA archive by the tests' own writer. Without -s clusters come disk by disk, in order; with it shuffled,
but for those of a vmstate, which are only mixed with the others. -x leaves out the cluster number N as
they come, -t has it twice; -p clusters are in an extent."""
import getopt
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "interop"))
import vma_writer as vma  # noqa: E402


def shuffled(slots, seed, states):
    slots = list(slots)
    random.Random(seed).shuffle(slots)
    ordered = iter(sorted(s for s in slots if s[0] in states))
    return [next(ordered) if s[0] in states else s for s in slots]


options, rest = getopt.gnu_getopt(sys.argv[1:], "c:s:p:x:t:")
configs = [(v.split("=", 1)[0], v.split("=", 1)[1].encode()) for o, v in options if o == "-c"]
devices, slots, states = {}, [], set()
for number, disk in enumerate(rest[1:], 1):
    name, path = disk.split("=", 1)
    if ":" in name:
        number, name = name.split(":", 1)
    devices[int(number)] = (name, os.path.getsize(path))
    states |= {int(number)} if name == "vmstate" else set()
    slots += vma.clusters(int(number), path)
for seed in [v for o, v in options if o == "-s"]:
    slots = shuffled(slots, seed, states)
left_out, twice = ({int(v) for o, v in options if o == letter} for letter in ("-x", "-t"))
slots = [s for i, s in enumerate(slots) if i not in left_out for _ in range(1 + (i in twice))]
per = [int(v) for o, v in options if o == "-p"] or [58]
vma.archive(rest[0], devices, slots, configs=configs, per=per[0])
