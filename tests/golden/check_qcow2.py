# SPDX-License-Identifier: MIT
"""qcow2 images broken in one place each: the check finds it, the repair mends it, a second check is
clean, for the peer as well, and what the image holds is what it held, but for what was lost. Each
row has the peer's exit code before the repair: where that is 0, the peer said "No errors"."""
import json
import os
import random
import shutil

import craft
from craft import COPIED, PACKED, ZERO, get, l1_at, l2_at, packed_at, put, put_field
from harm import Bases, cut, measured
from judging import Checks, append, both, checker, without, write
from peers import KIB, MIB, add_case, main, platter, qemu_img, qemu_io, run, sha256, text_like

CS = 64 * KIB
SIZE = MIB + 512
DATA = [n for n in range(17) if n not in (4, 5, 11)]  # clusters that hold something
FAR = 1 << 40

bases = Bases("qcow2")


def make_raw():
    rng = random.Random(18)
    out = bytearray(SIZE)
    for cluster in DATA:
        n = min(CS, SIZE - cluster * CS)
        out[cluster * CS:cluster * CS + n] = text_like(rng, n)
    bases.write("raw", out)


def make_bases():
    make_raw()
    kinds = {"plain": [], "v2": ["-o", "compat=0.10"], "zlib": ["-c"],
             "zstd": ["-c", "-o", "compression_type=zstd"], "wide": ["-o", "extended_l2=on"],
             "one_bit": ["-o", "refcount_bits=1"], "long": ["-o", "refcount_bits=64"],
             "small": ["-o", "cluster_size=512"]}
    for name, how in kinds.items():
        qemu_img("convert", *how, "-f", "raw", "-O", "qcow2", bases.path("raw"), bases.path(name))
    qemu_io(bases.path("plain"), "qcow2", "write -z 256k 64k", "write 320k 64k", "write -z 320k 64k")
    make_shared()
    make_old_snapshots()
    make_packed_snapshot()
    make_bitmaps()
    make_luks()
    make_data_file()


def make_shared():
    """Two snapshots: "one" shows what "raw" holds, and so does the disk; in "two" cluster 0 differs.
    Cluster 0 and its table are the disk's own, the rest is shared by all."""
    image = bases.path("snap")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", bases.path("raw"), image)
    qemu_img("snapshot", "-c", "one", image)
    qemu_io(image, "qcow2", "write -P 7 0 64k")
    qemu_img("snapshot", "-c", "two", image)
    with open("first", "wb") as f:
        f.write(bases.read("raw")[:CS])
    qemu_io(image, "qcow2", "write -s first 0 64k")
    os.unlink("first")


def make_old_snapshots():
    """Of version 2, which need not tell how large their disks are."""
    image = bases.path("v2snap")
    shutil.copy(bases.path("v2"), image)
    for name in ("old", "newer"):
        qemu_img("snapshot", "-c", name, image)
    old = bases.read("v2snap")
    at = to = craft.field(old, "snapshots_offset")
    entries = []
    for _ in range(2):
        extra, names = get(old, at + 36, 4), get(old, at + 12, 2) + get(old, at + 14, 2)
        entry = old[at:at + 36] + bytes(4) + old[at + 40 + extra:at + 40 + extra + names]
        entries.append(entry + bytes(-len(entry) % 8))
        at += (40 + extra + names + 7) // 8 * 8
    new = b"".join(entries)
    old[to:to + len(new)] = new
    bases.write("v2snap", old)


def make_packed_snapshot():
    """What cluster 2 held when the snapshot was made is compressed, and nobody else's."""
    image = bases.path("zlibsnap")
    shutil.copy(bases.path("zlib"), image)
    qemu_img("snapshot", "-c", "one", image)
    with open("again", "wb") as f:
        f.write(bases.read("raw")[2 * CS:3 * CS])
    qemu_io(image, "qcow2", "write -s again 128k 64k")
    os.unlink("again")


def make_bitmaps():
    image = bases.path("bitmaps")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", bases.path("raw"), image)
    for name in ("daily", "weekly", "hourly"):
        qemu_img("bitmap", "--add", "-g", "512", image, name)
    qemu_io(image, "qcow2", "write -z 256k 64k")


def make_luks():
    with open(bases.path("key"), "w") as f:
        f.write("secret")
    platter("create", "-q", "--object", f"secret,id=s,file={bases.path('key')}", "-f", "qcow2", "-o",
             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", bases.path("luks"),
             "1M")


def make_data_file():
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={bases.path('data')}", bases.path("outside"),
             "1M")
    qemu_io(bases.path("outside"), "qcow2", "write 0 1M")
    qemu_img("create", "-f", "qcow2", "-o",
             f"extended_l2=on,data_file={bases.path('wide_data')}", bases.path("wide_outside"), "1M")
    qemu_io(bases.path("wide_outside"), "qcow2", "write 0 200k", "write 512k 2k")


make_bases()


# ---- places ------------------------------------------------------------------------------------

def set_header(**values):
    def harm(image):
        for name, value in values.items():
            put_field(image, name, value(craft.field(image, name)) if callable(value) else value)
    return harm


def set_at(where, value, *args, length=8):
    """Replaces the number at where(image, *args); `value` may be a function of the old one."""
    def harm(image):
        at = where(image, *args)
        put(image, at, value(get(image, at, length)) if callable(value) else value, length)
    return harm


def entry(index, value):
    return set_at(l2_at, value, index)


def wide_entry(index, value, bitmap=None):
    def harm(image):
        at = l2_at(image, index, 16)
        put(image, at, value(get(image, at)))
        if bitmap is not None:
            put(image, at + 8, bitmap)
    return harm


def cluster_size(image):
    return 1 << craft.field(image, "cluster_bits")


def reftable_at(image, index=0):
    return craft.field(image, "refcount_table_offset") + 8 * index


def block_at(image):
    return get(image, reftable_at(image))


def count_at(image, cluster):
    """Of 16 bits."""
    return block_at(image) + 2 * cluster


def data_of(image, index):
    return get(image, l2_at(image, index)) & 0x00FFFFFFFFFFFE00


def set_count(value, cluster):
    """`cluster` may be a function of the image."""
    def harm(image):
        number = cluster(image) if callable(cluster) else cluster
        put(image, count_at(image, number), value, 2)
    return harm


def l2_table(image, table=0):
    return l2_at(image, 0, table=table)


def snapshot_at(image, number=0):
    at = craft.field(image, "snapshots_offset")
    for _ in range(number):
        at += 40 + get(image, at + 36, 4) + get(image, at + 12, 2) + get(image, at + 14, 2)
        at += -at % 8
    return at


def snapshot(number, field, value):
    offset, length = {"l1_offset": (0, 8), "l1_size": (8, 4), "id_length": (12, 2),
                      "extra": (36, 4), "disk_size": (48, 8)}[field]
    return set_at(lambda image: snapshot_at(image, number) + offset, value, length=length)


def extension_at(image, kind):
    at = craft.field(image, "header_length")
    while get(image, at, 4) != kind:
        assert get(image, at, 4)
        at += 8 + (get(image, at + 4, 4) + 7) // 8 * 8
    return at + 8


BITMAPS, CRYPTO = 0x23852875, 0x0537BE77


def bitmap_extension(field, value):
    offset, length = {"n": (0, 4), "zero": (4, 4), "size": (8, 8), "offset": (16, 8)}[field]
    return set_at(lambda image: extension_at(image, BITMAPS) + offset, value, length=length)


def bitmap_at(image, number=0):
    at = get(image, extension_at(image, BITMAPS) + 16)
    for _ in range(number):
        at += 24 + get(image, at + 18, 2) + get(image, at + 20, 4)
        at += -at % 8
    return at


def bitmap(number, field, value):
    offset, length = {"table": (0, 8), "n": (8, 4), "flags": (12, 4), "type": (16, 1),
                      "granularity": (17, 1), "name": (18, 2), "extra": (20, 4)}[field]
    return set_at(lambda image: bitmap_at(image, number) + offset, value, length=length)


def name_bitmap(image, number, name):
    at = bitmap_at(image, number)
    assert get(image, at + 18, 2) == len(name)
    at += 24 + get(image, at + 20, 4)
    image[at:at + len(name)] = name


def bitmap_entry(number, value):
    return set_at(lambda image: get(image, bitmap_at(image, number)), value)


# ---- what is expected --------------------------------------------------------------------------

check = checker("qcow2")


class Check(Checks):
    check = staticmethod(check)


def expect_content(image, lost=()):
    write("right", without(bases.read("raw"), CS, lost))
    platter("compare", "-f", "qcow2", "-F", "raw", image, "right")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", image, "right")


def expect_snapshots(self, image, kept):
    listed = json.loads(platter("info", "--output=json", image).stdout).get("snapshots", [])
    self.assertEqual([s["name"] for s in listed], list(kept))
    for name in kept:
        right = bytearray(bases.read("raw"))
        if name == "two":
            right[:CS] = b"\7" * CS
        qemu_img("convert", "-l", f"snapshot.name={name}", "-f", "qcow2", "-O", "raw", image, "view")
        with open("view", "rb") as f:
            self.assertEqual(f.read(), bytes(right), f"snapshot {name}")


def expect_bitmaps(self, image, kept):
    info = json.loads(qemu_img("info", "--output=json", image).stdout)
    listed = info["format-specific"]["data"].get("bitmaps", [])
    self.assertEqual([b["name"] for b in listed], list(kept))


def look(self, image, code, peer, words):
    qemu_img("check", "-f", "qcow2", image, code=peer)
    return self.sees(image, code, words)


def mends(self, base, peer, harm, *words, lost=(), snapshots=None, kept=None, content=True, code=2,
          gone=True, theirs=True):
    """`lost`: guest clusters; `gone`: more than leaks and flags is wrong; `theirs`: the peer can look
    at it."""
    image = bases.damaged(base, harm)
    look(self, image, code, peer, words)
    if code == 2 and gone:
        with self.unchanged(image, "what is damaged was touched for its leaks"):
            check(image, "-r", "leaks", code=2)
    answer, _ = check(image, "-r", "all")
    self.assertGreater(answer.get("corruptions-fixed", 0) + answer.get("leaks-fixed", 0), 0, answer)
    self.is_clean(image, *(["--data"] if base in ("zlib", "zstd") else []))
    if theirs:
        qemu_img("check", "-f", "qcow2", image)
    if content:
        expect_content(image, lost)
    if snapshots is not None:
        expect_snapshots(self, image, snapshots)
    if kept is not None:
        expect_bitmaps(self, image, kept)


def leaks(self, base, peer, harm, n, *words):
    image = bases.damaged(base, harm)
    answer = look(self, image, 3, peer, words)
    self.assertEqual(answer["leaks"], n, answer)
    answer, _ = check(image, "-r", "leaks")
    self.assertEqual(answer["leaks-fixed"], n)
    self.assertNotIn("leaks", answer)
    qemu_img("check", "-f", "qcow2", image)
    expect_content(image)


def stays(self, base, peer, harm, *words, code=2):
    """Nothing can be done about it, and nothing is."""
    image = bases.damaged(base, harm)
    look(self, image, code, peer, words)
    self.is_left_alone(image, code)


def refused(self, base, peer, harm, word):
    """It is not known what the rest means: no check at all."""
    image = bases.damaged(base, harm)
    qemu_img("check", "-f", "qcow2", image, code=peer)
    for how in ([], ["-r", "all"]):
        before = sha256(image)
        done = platter("check", "-f", "qcow2", *how, image, code={1, 63})
        self.assertRegex(done.stderr, word)
        self.assertEqual(sha256(image), before)


def notes(self, base, peer, harm, *words):
    image = bases.damaged(base, harm)
    answer = look(self, image, 0, peer, words)
    self.assertEqual([f["severity"] for f in answer["findings"]], ["note"])
    check(image, "-r", "all")
    answer, said = check(image)
    self.assertNotIn("findings", answer, said)
    qemu_img("check", "-f", "qcow2", image)
    expect_content(image)


def case(name, judge, *args, **more):
    add_case(Check, name, lambda self: judge(self, *args, **more))


# ---- the header
case("magic", refused, "plain", 1, set_header(magic=0x51464900), "no qcow2 header")
case("version", refused, "plain", 1, set_header(version=4), "no qcow2 header")
case("cluster_bits", refused, "plain", 1, set_header(cluster_bits=30), "cluster_bits")
case("header_length", refused, "plain", 1, set_header(header_length=96), "header_length")
case("unknown_feature", refused, "plain", 1, set_header(incompatible_features=1 << 40), "feature")
case("size_over_l1", stays, "plain", 1, set_header(size=1 << 40), "l1_size")
case("size_huge", stays, "plain", 1, set_header(size=(1 << 64) - 1), "size")
case("crypt_method", stays, "plain", 1, set_header(crypt_method=3), "crypt_method")
case("l1_far", stays, "plain", 2, set_header(l1_table_offset=FAR), "l1_table_offset")
case("l1_misaligned", stays, "plain", 1, set_header(l1_table_offset=0x30200), "l1_table_offset")
case("refcount_order", stays, "plain", 1, set_header(refcount_order=7), "refcount_order")
case("compression", stays, "plain", 1, set_header(compression_type=1), "compression_type")
case("extension", stays, "plain", 1, set_at(lambda image: 116, 1 << 30, length=4), "extension")
case("backing_name", stays, "plain", 1,
     set_header(backing_file_offset=CS - 4, backing_file_size=9), "backing_file")
case("dirty", notes, "plain", 0, set_header(incompatible_features=1), "not closed cleanly")
case("corrupt", notes, "plain", 0, set_header(incompatible_features=2), "marked as corrupt")
case("raw_without_data_file", mends, "plain", 1, set_header(autoclear_features=2), "raw external")
case("table_far", mends, "plain", 2, set_header(refcount_table_offset=FAR), "refcount table")
case("table_misaligned", mends, "plain", 1, set_header(refcount_table_offset=0x10200),
     "refcount table")
case("table_none", mends, "plain", 2, set_header(refcount_table_clusters=0), "refcount table")
case("table_long", mends, "plain", 1, set_header(refcount_table_clusters=1 << 30), "refcount table")
case("table_on_l1", mends, "plain", 1,
     set_header(refcount_table_offset=lambda old: 3 * CS), "refcount table")

# ---- refcount blocks and counts
case("block_reserved", mends, "plain", 2, set_at(reftable_at, lambda v: v | 1), "reserved bits")
case("block_misaligned", mends, "plain", 1, set_at(reftable_at, lambda v: v + 512), "multiple")
case("block_far", mends, "plain", 2, set_at(reftable_at, FAR), "behind the end")
case("block_none", mends, "plain", 2, set_at(reftable_at, 0), "have no refcount block")
case("block_is_table", mends, "plain", 2, lambda i: put(i, reftable_at(i), reftable_at(i)), "entry 0 of the refcount")
case("block_twice", mends, "plain", 2, lambda i: put(i, reftable_at(i, 1), block_at(i)), "another block")
case("block_is_data", mends, "plain", 2,
     lambda image: put(image, reftable_at(image), data_of(image, 3)), "entry 0 of the refcount")
case("block_counts_itself_0", mends, "plain", 2, set_count(0, lambda i: block_at(i) // CS), "count 0")
case("block_counts_itself_2", leaks, "plain", 3, set_count(2, lambda i: block_at(i) // CS), 1)
case("count_low", mends, "plain", 2, set_count(0, lambda i: data_of(i, 2) // CS), "count 0")
case("count_low_shared", mends, "snap", 2, set_count(1, lambda i: data_of(i, 2) // CS), "count 1",
     snapshots=["one", "two"])
case("count_high", mends, "plain", 2, set_count(3, lambda i: data_of(i, 2) // CS), "count 3", gone=False)
case("count_high_table", mends, "plain", 2, set_count(2, lambda i: l2_table(i) // CS), "count 2", gone=False)
case("count_of_nobody", leaks, "plain", 0, set_count(1, 100), 1, "count 1, but 0 references")
case("counts_of_nobody", leaks, "plain", 0,
     both(*(set_count(9, n) for n in range(900, 1000))), 100, "count 9, but 0 references")
case("count_behind_end", leaks, "plain", 0, set_count(1, 32767), 1)
case("one_bit_low", mends, "one_bit", 2, set_at(block_at, lambda v: v ^ 0x80, length=1), "count 0")
case("long_high", mends, "long", 2, set_at(lambda i: block_at(i) + 8 * 9, 1 << 60), "count 11529", gone=False)
case("small_block_none", mends, "small", 2, set_at(reftable_at, 0, 2), "have no refcount block")
case("small_all_lost", mends, "small", 1, set_header(refcount_table_offset=7), "refcount table at 7")

# ---- L1 entries
case("l1_reserved", mends, "plain", 2, set_at(l1_at, lambda v: v | 1 << 60), "reserved bits")
case("l1_entry_misaligned", mends, "plain", 2, set_at(l1_at, lambda v: v + 512), "multiple", lost=DATA)
case("l1_entry_far", mends, "plain", 2, set_at(l1_at, FAR | COPIED), "behind the end", lost=DATA)
case("l1_is_l1", mends, "plain", 2, set_at(l1_at, 0x30000 | COPIED), "another table", lost=DATA)
case("l1_is_header_table", mends, "snap", 2,
     lambda image: put(image, l1_at(image), craft.field(image, "snapshots_offset")), "another table",
     lost=DATA, snapshots=None)
case("l1_is_data", mends, "plain", 2,
     lambda image: put(image, l1_at(image), data_of(image, 3)), "is none|no L2", lost=DATA)
case("l1_copied_stale", mends, "snap", 2,
     both(entry(3, lambda v: v | COPIED)), "bit 63", snapshots=["one", "two"], gone=False)
case("l1_copied_clear", mends, "plain", 2, set_at(l1_at, lambda v: v & ~COPIED), "bit 63 of 1 ", gone=False)

# ---- L2 entries
case("l2_misaligned", mends, "plain", 2, entry(2, lambda v: v + 512), "multiple", lost=[2])
case("l2_far", mends, "plain", 2, entry(2, FAR | COPIED), "behind the end", lost=[2])
case("l2_reserved", mends, "plain", 2, entry(2, lambda v: v | 1 << 57), "reserved bits")
case("l2_reserved_low", mends, "plain", 2, entry(2, lambda v: v | 4), "reserved bits")
case("l2_zero_misaligned", mends, "plain", 2, entry(5, lambda v: v + 512), "multiple")
case("l2_zero_far", mends, "plain", 2, entry(5, FAR | COPIED | ZERO), "behind the end")
case("l2_is_header_table", mends, "plain", 2, entry(2, CS | COPIED), "a table of the image", lost=[2])
case("l2_is_block", mends, "plain", 2, lambda i: put(i, l2_at(i, 2), block_at(i) | COPIED),
     "a table of the image", lost=[2])
case("l2_is_l1", mends, "plain", 2, entry(2, 3 * CS | COPIED), "a table of the image", lost=[2])
case("l2_is_itself", mends, "plain", 2, lambda image: put(image, l2_at(image, 2), l2_table(image) | COPIED),
     "a table of the image", lost=[2])
case("l2_is_snapshots", mends, "snap", 2,
     lambda image: put(image, l2_at(image, 2), craft.field(image, "snapshots_offset") | COPIED),
     "a table of the image", lost=[2])
case("l2_copied_clear", mends, "plain", 2, entry(2, lambda v: v & ~COPIED), "bit 63 of 1 ", gone=False)
case("l2_copied_all_clear", mends, "plain", 2,
     both(*(entry(n, lambda v: v & ~COPIED) for n in DATA)), "bit 63 of 14 ", gone=False)
case("l2_v2_zero", mends, "v2", 0, entry(2, lambda v: v | ZERO), "reserved bits")
case("l2_v2_far", mends, "v2", 2, entry(2, FAR | COPIED), "never written|behind the end", lost=[2])
case("file_cut", mends, "plain", 2, cut(lambda image: data_of(image, 13)), "behind the end",
     lost=[13, 14, 15, 16])

# ---- compressed entries
case("packed_copied", mends, "zlib", 2, entry(2, lambda v: v | COPIED), "bit 63 set")
case("packed_far", mends, "zlib", 2, entry(2, PACKED | FAR), "behind the end", lost=[2])
case("packed_in_header", mends, "zlib", 2, entry(2, PACKED | 4096), "cannot stand there", lost=[2])
case("packed_in_table", mends, "zlib", 2, entry(2, PACKED | 3 * CS), "a table of the image", lost=[2])
case("packed_count_low", mends, "zlib", 2,
     lambda i: put(i, count_at(i, packed_at(i, 2)[0] // CS), 1, 2), "count 1")
case("packed_count_high", leaks, "zlib", 3,
     lambda i: put(i, count_at(i, packed_at(i, 2)[0] // CS), 99, 2), 1, "count 99")

# ---- extended entries
case("wide_both", mends, "wide", 2, wide_entry(2, lambda v: v, 0xFFFFFFFF_FFFFFFFF), "bitmap contradicts")
case("wide_without_place", mends, "wide", 2, wide_entry(4, lambda v: 0, 0xFF), "bitmap contradicts")
case("wide_zero_bit", mends, "wide", 0, wide_entry(2, lambda v: v | ZERO), "reserved bits")
case("wide_far", mends, "wide", 2, wide_entry(2, lambda v: FAR | COPIED), "behind the end", lost=[2])

# ---- snapshots
two = {"snapshots": ["two"]}
one_and_two = {"snapshots": ["one", "two"]}
case("snapshot_l1_misaligned", mends, "snap", 2, snapshot(0, "l1_offset", lambda v: v + 8),
     "snapshot table entry 0", **two)
case("snapshot_l1_far", mends, "snap", 2, snapshot(0, "l1_offset", FAR), "snapshot table entry 0", **two)
case("snapshot_l1_long", mends, "snap", 2, snapshot(0, "l1_size", 1 << 31), "4194304 entries", **two)
case("snapshot_l1_is_active", mends, "snap", 2, snapshot(0, "l1_offset", 3 * CS), "another table", **two)
case("snapshot_extra_short", mends, "snap", 2,
     lambda image: shorten_extra(image), "less than the 16 bytes", **one_and_two)
case("snapshot_extra_huge", mends, "snap", 1, snapshot(1, "extra", 1 << 31), "number 2 on",
     snapshots=["one"])
case("snapshot_one_too_many", mends, "snap", 2, set_header(nb_snapshots=3), "number 3",
     **one_and_two)
case("snapshots_too_many", mends, "snap", 1, set_header(nb_snapshots=1 << 31), "number 3",
     snapshots=None)
case("snapshots_none_far", mends, "plain", 1, set_header(snapshots_offset=1 << 63), "snapshots_offset")
case("snapshots_far", mends, "snap", 2, set_header(snapshots_offset=FAR), "snapshots_offset",
     snapshots=[])
case("snapshots_misaligned", mends, "snap", 1, set_header(snapshots_offset=77), "snapshots_offset",
     snapshots=[])
case("snapshots_on_l1", mends, "snap", 2, set_header(snapshots_offset=3 * CS), "snapshot", snapshots=[])
case("snapshot_entry_far", mends, "snap", 2,
     lambda image: put(image, get(image, snapshot_at(image)), FAR), "L1 table of snapshot 1",
     snapshots=None)
case("snapshot_lost_count", mends, "snap", 2,
     set_count(0, lambda i: get(i, snapshot_at(i)) // CS), "count 0", **one_and_two)
case("snapshot_table_count", mends, "snap", 2,
     set_count(0, lambda i: craft.field(i, "snapshots_offset") // CS), "count 0", **one_and_two)


def shorten_extra(image):
    """A first entry as version 2 has them, with nothing behind the fixed part but the names."""
    at = snapshot_at(image)
    rest = bytes(image[at + 64:at + 64 + get(image, at + 12, 2) + get(image, at + 14, 2)])
    second = bytes(image[snapshot_at(image, 1):snapshot_at(image, 1) + 80])
    put(image, at + 36, 0, 4)
    image[at + 40:at + 200] = bytes(160)
    image[at + 40:at + 40 + len(rest)] = rest
    following = snapshot_at(image, 1)
    image[following:following + 80] = second


case("snapshot_disk_size", mends, "snap", 0, snapshot(0, "disk_size", FAR), "its disk has", **one_and_two)
case("snapshot_of_version_2_goes", mends, "v2snap", 2, snapshot(0, "l1_offset", FAR),
     "snapshot table entry 0", snapshots=["newer"])

# ---- bitmaps
weekly = {"kept": ["weekly", "hourly"]}
every = {"kept": ["daily", "weekly", "hourly"]}
nothing = {"kept": []}
case("bitmaps_reserved", mends, "bitmaps", 1, bitmap_extension("zero", 1), "reserved field", **nothing)
case("bitmaps_none", mends, "bitmaps", 1, bitmap_extension("n", 0), "number of bitmaps", **nothing)
case("bitmaps_far", mends, "bitmaps", 1, bitmap_extension("offset", FAR), "bitmap directory", **nothing)
case("bitmaps_misaligned", mends, "bitmaps", 1, bitmap_extension("offset", lambda v: v + 8),
     "bitmap directory", **nothing)
case("bitmaps_on_l1", mends, "bitmaps", 1, bitmap_extension("offset", 3 * CS), "bitmap directory",
     **nothing)
case("bitmaps_short", mends, "bitmaps", 1, bitmap_extension("size", lambda v: v - 8),
     "inside of an entry", kept=["daily", "weekly"])
case("bitmaps_long", mends, "bitmaps", 1, bitmap_extension("size", lambda v: v + 8), "longer than",
     **every)
case("bitmaps_void", leaks, "bitmaps", 3, set_header(autoclear_features=0), 7, "are void")
case("bitmap_table_far", mends, "bitmaps", 2, bitmap(0, "table", FAR), "entry 0 .\"daily\"", **weekly)
case("bitmap_table_is_data", mends, "bitmaps", 1,
     lambda image: bitmap(0, "table", data_of(image, 3))(image), "entry 0", **weekly)
case("bitmap_table_long", mends, "bitmaps", 1, bitmap(0, "n", 1 << 30), "length of its table", **weekly)
case("bitmap_flags", mends, "bitmaps", 1, bitmap(0, "flags", 64), "reserved flags", **weekly)
case("bitmap_type", mends, "bitmaps", 1, bitmap(0, "type", 9), "type", **weekly)
case("bitmap_granularity", mends, "bitmaps", 1, bitmap(0, "granularity", 60), "granularity", **weekly)
case("bitmap_entry_reserved", mends, "bitmaps", 1, bitmap_entry(0, lambda v: v | 4), "reserved bits",
     **weekly)
case("bitmap_entry_far", mends, "bitmaps", 2, bitmap_entry(0, FAR), "behind the end", **weekly)
case("bitmap_entry_is_l2", mends, "bitmaps", 2,
     lambda image: bitmap_entry(0, l2_table(image))(image), "something else", **weekly)
case("bitmap_count", mends, "bitmaps", 2,
     set_count(0, lambda i: get(i, bitmap_at(i)) // CS), "count 0", **every)
case("bitmap_names_twice", mends, "bitmaps", 1,
     lambda image: name_bitmap(image, 2, b"weekly"), "same name", kept=["daily"])
case("bitmap_name_zero", mends, "bitmaps", 0, lambda image: name_bitmap(image, 0, b"da\0ly"),
     "none of them 0", **weekly)

# ---- LUKS, data files
case("luks_far", stays, "luks", 1,
     set_at(lambda i: extension_at(i, CRYPTO), FAR), "LUKS header")
case("luks_far_without_counts", stays, "luks", 1,
     both(set_header(refcount_table_offset=7), set_at(lambda i: extension_at(i, CRYPTO), FAR)),
     "LUKS header", "refcount table")
case("luks_count", mends, "luks", 1,
     set_count(0, lambda i: get(i, extension_at(i, CRYPTO)) // CS), "count 0", content=False,
     theirs=False)
case("outside_elsewhere", mends, "outside", 0, entry(2, lambda v: v + CS), "guest offset",
     content=False)
case("outside_nowhere", mends, "outside", 0, entry(2, COPIED), "guest offset", content=False)
case("outside_copied_clear", mends, "outside", 2, entry(2, lambda v: v & ~COPIED), "bit 63 of 1 ",
     content=False, gone=False)
case("outside_packed", mends, "outside", 2, entry(2, PACKED | 5 * CS), "nothing is compressed",
     content=False)


# ---- more than a field

def outside_at_0(self):
    """Only the first cluster of a data file stands at its offset 0: any other is an error to read, not
    zeros."""
    for options in ("", "extended_l2=on,"):
        qemu_img("create", "-f", "qcow2", "-o", f"{options}data_file=data.raw", "image.qcow2", "1M")
        qemu_io("image.qcow2", "qcow2", "write -P 1 0 64k", "write -P 2 128k 64k")
        platter("convert", "-O", "raw", "image.qcow2", "right")
        self.is_clean("image.qcow2")
        with open("image.qcow2", "rb") as f:
            image = bytearray(f.read())
        put(image, l2_at(image, 2, 16 if options else 8), COPIED)
        write("image.qcow2", image)
        done = platter("convert", "-O", "raw", "image.qcow2", "target", code=1)
        self.assertIn("131072", done.stderr)
        check("image.qcow2", "-r", "all")
        self.is_clean("image.qcow2")
        platter("compare", "-F", "raw", "image.qcow2", "right")


case("outside_at_0", outside_at_0)


def sound(self):
    """The undamaged images are; and what the peer says of them we say, too."""
    for base in ("plain", "v2", "zlib", "zstd", "wide", "one_bit", "long", "small", "snap", "v2snap",
                 "zlibsnap", "bitmaps", "luks", "outside", "wide_outside"):
        with self.subTest(base=base):
            answer, said = check(bases.path(base))
            if base == "luks":  # of which the peer wants the key for this
                continue
            theirs = json.loads(qemu_img("check", "--output=json", "-f", "qcow2",
                                         bases.path(base)).stdout)
            self.assertEqual(answer, theirs)
            self.assertEqual(said, "")


case("sound", sound)


def same_cluster(self):
    """Two guest clusters in one place: both go on to show it, and a write to one leaves the other."""
    image = bases.damaged("plain", lambda i: put(i, l2_at(i, 2), get(i, l2_at(i, 3))))
    look(self, image, 2, 2, ["count 1, but 2 references"])
    check(image, "-r", "all")
    check(image)
    qemu_img("check", image)
    qemu_io(image, "qcow2", "write -P 9 128k 64k")
    right = bytearray(bases.read("raw"))
    right[2 * CS:3 * CS] = b"\x09" * CS
    with open("right", "wb") as f:
        f.write(right)
    platter("compare", "-f", "qcow2", "-F", "raw", image, "right")


case("same_cluster", same_cluster)


def same_table(self):
    """The same of two entries of the L1 table."""
    def harm(image):
        put(image, l1_at(image, 1), get(image, l1_at(image)))
    qemu_img("create", "-f", "qcow2", "wide.qcow2", "1G")
    qemu_io("wide.qcow2", "qcow2", "write -P 3 0 192k")
    with open("wide.qcow2", "rb") as f:
        image = bytearray(f.read().ljust(4 * CS, b"\0"))
    harm(image)
    with open("wide.qcow2", "wb") as f:
        f.write(image)
    look(self, "wide.qcow2", 2, 2, ["count 1, but 2 references"])
    check("wide.qcow2", "-r", "all")
    check("wide.qcow2")
    qemu_img("check", "wide.qcow2")
    qemu_io("wide.qcow2", "qcow2", "write -P 4 512M 64k", "read -P 3 0 192k", "read -P 4 512M 64k",
            "read -P 3 524352k 128k")


case("same_table", same_table)


def payload(self):
    """What is compressed has no count that tells of it: only unpacking does; the peer has no such
    look at all."""
    for base in ("zlib", "zstd"):
        def scramble(image):
            at, _ = packed_at(image, 2)
            image[at + 20:at + 60] = random.Random(2).randbytes(40)
        image = bases.damaged(base, scramble)
        look(self, image, 0, 0, [])
        _, said = check(image, "--data", code=2)
        self.assertIn("131072", said)


case("payload", payload)


def snapshot_l2_at(image, number, index):
    """Where the L2 entry of a guest cluster of a snapshot stands."""
    table = get(image, get(image, snapshot_at(image, number))) & 0x00FFFFFFFFFFFE00
    return table + 8 * index


def payload_of_snapshot(self):
    """The same of what only a snapshot has."""
    self.is_clean(bases.path("zlibsnap"), "--data")

    def scramble(image):
        at = get(image, snapshot_l2_at(image, 0, 2)) & ((1 << 54) - 1)
        image[at + 20:at + 60] = random.Random(2).randbytes(40)
    image = bases.damaged("zlibsnap", scramble)
    look(self, image, 0, 0, [])
    answer, said = check(image, "--data", code=2)
    self.assertEqual(answer["corruptions"], 1)
    self.assertIn('snapshot "one"', said)
    self.assertIn("131072", said)
    qemu_img("snapshot", "-c", "two", image)
    qemu_img("snapshot", "-c", "three", image)
    answer, said = check(image, "--data", code=2)
    self.assertEqual(answer["corruptions"], 1, said)


case("payload_of_snapshot", payload_of_snapshot)


def cut_inside(self):
    """The file ends inside of the last cluster, where something is missing: nobody can read it."""
    def last_is_data(image):
        return bytearray(image[:data_of(image, 4) + 20 * KIB + 100])
    shutil.copy(bases.path("plain"), "longer.qcow2")
    qemu_io("longer.qcow2", "qcow2", "write -P 9 256k 64k")
    with open("longer.qcow2", "rb") as f:
        write("cut.qcow2", last_is_data(bytearray(f.read())))
    platter("convert", "-O", "raw", "cut.qcow2", "target", code=1)
    look(self, "cut.qcow2", 2, 0, ["data of guest offset 262144", "cut short"])
    check("cut.qcow2", "-r", "all")
    self.is_clean("cut.qcow2")
    right = without(bases.read("raw"), CS, [])
    right[4 * CS:4 * CS + 20 * KIB + 100] = b"\x09" * (20 * KIB + 100)
    write("right", right)
    platter("compare", "-f", "qcow2", "-F", "raw", "cut.qcow2", "right")

    qemu_img("create", "-f", "qcow2", "table.qcow2", "1G")
    qemu_io("table.qcow2", "qcow2", "write -P 3 0 192k", "write -z 512M 64k")
    with open("table.qcow2", "rb") as f:
        image = bytearray(f.read())
    self.assertEqual(l2_table(image, 1), len(image) - CS)
    write("table.qcow2", image[:-1000])
    platter("convert", "-O", "raw", "table.qcow2", "target", code=1)
    look(self, "table.qcow2", 2, 0, ["an L2 table at", "cut short"])
    check("table.qcow2", "-r", "all")
    self.is_clean("table.qcow2")
    platter("convert", "-O", "raw", "table.qcow2", "target")
    qemu_io("table.qcow2", "qcow2", "read -P 3 0 192k", "read -P 0 512M 64k")


case("cut_inside", cut_inside)


def cut_snapshot(self):
    """What only a snapshot has is missing at the end: the file must not grow over that."""
    def to_the_end(image):
        at = snapshot_l2_at(image, 1, 0)
        old = get(image, at) & 0x00FFFFFFFFFFFE00
        image.extend(bytes(-len(image) % CS))
        new = len(image)
        image.extend(image[old:old + CS])
        put(image, at, new)
        set_count(1, new // CS)(image)
        set_count(0, old // CS)(image)
    image = bases.damaged("snap", to_the_end)
    self.is_clean(image)
    expect_snapshots(self, image, ["one", "two"])
    image = bases.damaged("snap", both(to_the_end, lambda i: i.__delitem__(slice(len(i) - CS, None))))
    with self.unchanged(image, "what was cut was made longer"):
        done = platter("snapshot", "-c", "three", image, code=1)
    self.assertRegex(done.stderr, 'snapshot "two".*cut short')
    check(image, "-r", "all")
    self.is_clean(image)
    platter("snapshot", "-c", "three", image)
    expect_content(image)


case("cut_snapshot", cut_snapshot)


def table_of_snapshot_is_free(self):
    """A count of 0 is a lie: no new table is put over an L2 table that only a snapshot has."""
    for number, name in enumerate(("one", "two")):
        image = bases.damaged(
            "snap", set_count(0, lambda i, n=number: snapshot_l2_at(i, n, 0) // CS))
        before = bases.read("snap")
        done = platter("snapshot", "-c", "three", image, code=1)
        self.assertIn("snapshots refer to it", done.stderr, name)
        with open(image, "rb") as f:
            after = bytearray(f.read())
        at = snapshot_l2_at(before, number, 0)
        self.assertEqual(after[at:at + CS], before[at:at + CS])
        self.assertEqual(craft.field(after, "incompatible_features"), 2)
        check(image, "-r", "all")
        self.is_clean(image)
        expect_content(image)
        expect_snapshots(self, image, ["one", "two"])
        platter("snapshot", "-c", "three", image)
        self.is_clean(image)


case("table_of_snapshot_is_free", table_of_snapshot_is_free)


def more_than_enough(self):
    """A bitmap's table may be longer than it must be, and one of a disk of no bytes has an entry."""
    def longer(image):
        bitmap(0, "n", lambda v: v + 1)(image)
    self.is_clean(bases.damaged("bitmaps", longer))
    platter("create", "-q", "-f", "qcow2", "empty.qcow2", "0")
    platter("bitmap", "--add", "empty.qcow2", "one")
    self.is_clean("empty.qcow2")


case("more_than_enough", more_than_enough)


def marks_of_others(self):
    """A look leaves bits of programs to come as they are; a repair is a change, which they must
    know of. What was whole is not touched by -r at all."""
    image = bases.damaged("plain", set_header(autoclear_features=1 << 40, compatible_features=1 << 41))
    before = sha256(image)
    check(image, "-r", "all")
    self.assertEqual(sha256(image), before)
    image = bases.damaged("plain", both(
        set_header(autoclear_features=1 << 40, compatible_features=1 << 41), set_count(0, 6)))
    check(image, "-r", "all")
    with open(image, "rb") as f:
        after = bytearray(f.read())
    self.assertEqual([craft.field(after, name + "_features")
                      for name in ("incompatible", "compatible", "autoclear")], [0, 1 << 41, 0])
    expect_content(image)


case("marks_of_others", marks_of_others)


def overflow(self):
    """A count of one bit cannot hold two references: that stays, and nobody is made the owner."""
    image = bases.damaged("one_bit", lambda i: put(i, l2_at(i, 2), get(i, l2_at(i, 3))))
    look(self, image, 2, 2, ["more than a count can hold"])
    check(image, "-r", "all", code=2)
    with open(image, "rb") as f:
        after = f.read()
    self.assertEqual([get(after, l2_at(after, n)) & COPIED for n in (2, 3)], [0, 0])


case("overflow", overflow)


def all_at_once(self):
    """Damage of all kinds in one image is mended in one run."""
    def harm(image):
        entry(2, FAR | COPIED)(image)
        entry(6, lambda v: v | 1 << 57)(image)
        snapshot(0, "l1_offset", FAR)(image)
        set_count(0, 6)(image)
        set_count(7, 40)(image)
        put(image, reftable_at(image, 1), 0x777)
    image = bases.damaged("snap", harm)
    look(self, image, 2, 2, ["count", "L2 table", "snapshot table entry 0", "refcount table"])
    check(image, "-r", "all")
    answer, _ = check(image)
    self.assertNotIn("findings", answer)
    qemu_img("check", image)
    expect_content(image, [2])
    expect_snapshots(self, image, ["two"])


case("all_at_once", all_at_once)


def many_tables():
    """200,000 clusters, a snapshot and 6,000 tables."""
    if not os.path.exists(bases.path("many")):
        platter("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=512",
                bases.path("many"), "100M")
        platter("snapshot", "-c", "one", bases.path("many"))
    return bases.read("many")


def little_memory(self):
    """Where counts do not fit into memory they are made in several passes, and nothing is missed, near
    the start of the file or at its end."""
    image = many_tables()
    tables = image_tables = [get(image, l1_at(image, n)) & ((1 << 56) - 512) for n in (0, 1500, 3000)]
    for number, table in enumerate(tables):
        put(image, table + 8, FAR)
        put(image, table + 16, get(image, table + 24))
        put(image, table + 32, l1_at(image))
        put(image, table + 40, image_tables[number - 1])
        cluster = (get(image, table + 64) & ((1 << 56) - 512)) // 512
        block = get(image, reftable_at(image, cluster // 256))
        put(image, block + 2 * (cluster % 256), number * 3, 2)
    results = []
    for memory in ("64M", "500k", "300k"):
        with open("many.qcow2", "wb") as f:
            f.write(image)
        answer, _ = check("many.qcow2", "--memory", memory, code=2)
        check("many.qcow2", "--memory", memory, "-r", "all", code={0, 3})
        check("many.qcow2", "-r", "leaks")
        after, _ = check("many.qcow2", "--memory", memory)
        self.assertNotIn("findings", after)
        results.append(answer)
    # What claims the place of a table is told for each entry that leads to it, if there is no room.
    for answer in results[1:]:
        self.assertGreaterEqual(answer["corruptions"], results[0]["corruptions"])
        self.assertEqual(answer["leaks"], results[0]["leaks"])
        self.assertLessEqual({f["text"] for f in results[0]["findings"]},
                             {f["text"] for f in answer["findings"]})
    qemu_img("check", "many.qcow2")


case("little_memory", little_memory)


def little_memory_spares_tables(self):
    """An entry that leads to a table of another kind is dropped; that table stays, be it counted in
    the same pass or in another."""
    image = many_tables()
    tables = [get(image, snapshot_at(image)), craft.field(image, "snapshots_offset")]
    for number, table in enumerate(tables):
        put(image, l1_at(image, 2000 + number), table | COPIED)
    for memory in ("64M", "300k"):
        write("many.qcow2", image)
        check("many.qcow2", "--memory", memory, code=2)
        check("many.qcow2", "--memory", memory, "-r", "all", code={0, 3})
        check("many.qcow2", "-r", "leaks")
        self.is_clean("many.qcow2")
        with open("many.qcow2", "rb") as f:
            after = f.read()
        for table in tables:
            self.assertEqual(after[table:table + 512], image[table:table + 512])
    qemu_img("check", "many.qcow2")


case("little_memory_spares_tables", little_memory_spares_tables)


def tables_of_nothing(self):
    """Where a file claims tables that are holes, these are not read for it."""
    n = 120000
    with open("holes.qcow2", "wb") as f:
        f.write(craft.Qcow2(n << 29).image()[:2 * CS])
        f.truncate((n + 32) * CS)
        f.seek(2 * CS)
        f.write(b"".join(((32 + i) * CS | COPIED).to_bytes(8, "big") for i in range(n)))
        f.seek(36)
        f.write(n.to_bytes(4, "big") + (2 * CS).to_bytes(8, "big") + bytes(8) + bytes(4))
    code, said = measured("check", "-f", "qcow2", "holes.qcow2")
    self.assertEqual(code, 2)
    self.assertIn(f"{n + 16} clusters in use", said)


case("tables_of_nothing", tables_of_nothing)


def backing_is_not_needed(self):
    """An image is checked by itself: the files below it are not looked for."""
    qemu_img("create", "-f", "qcow2", "-b", bases.path("plain"), "-F", "qcow2", "top.qcow2")
    with open("top.qcow2", "rb") as f:
        image = f.read().replace(os.path.basename(bases.path("plain")).encode(), b"gone!")
    with open("top.qcow2", "wb") as f:
        f.write(image)
    check("top.qcow2")


case("backing_is_not_needed", backing_is_not_needed)


def opened_dirty(self):
    """An unclean end: stale counts are made right before the first write; what is more than that is
    left for check -r."""
    def harm(image):
        put_field(image, "incompatible_features", 1)
        set_count(0, lambda i: data_of(i, 2) // CS)(image)
        set_count(1, 77)(image)
    image = bases.damaged("plain", harm)
    expect_content(image)
    platter("resize", image, "2M")
    answer, _ = check(image)
    self.assertNotIn("findings", answer)
    qemu_img("check", image)
    image = bases.damaged("plain", both(harm, entry(3, FAR | COPIED)))
    before = sha256(image)
    done = platter("resize", image, "2M", code=1)
    self.assertIn("check -r all", done.stderr)
    self.assertEqual(sha256(image), before)


case("opened_dirty", opened_dirty)


def lazy(self):
    """The same of an image whose writer was killed, with the counts that it had not written yet."""
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on", "lazy.qcow2", "64M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 1M", "-c", "write -P 6 5M 128k", "-c", "flush",
        "-c", "abort", "lazy.qcow2", code=-6)
    look(self, "lazy.qcow2", 2, 2, ["not closed cleanly", "count 0"])
    shutil.copy("lazy.qcow2", "other.qcow2")
    platter("resize", "lazy.qcow2", "65M")
    check("other.qcow2", "-r", "all")
    for image in ("lazy.qcow2", "other.qcow2"):
        answer, _ = check(image)
        self.assertNotIn("findings", answer)
        qemu_img("check", image)
        qemu_io(image, "qcow2", "read -P 5 0 1M", "read -P 6 5M 128k", "read -P 0 1M 4M")


case("lazy", lazy)

main()
