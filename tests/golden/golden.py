# SPDX-License-Identifier: MIT
"""Images that the peers do not make, laid out by hand as the format documents allow; what is known
of each stands in FORMAT-WHAT/: info.json and map.json, and the content is that of the recipe.

    golden.py            checks all
    golden.py --write    writes the files anew, to be read before they are committed
"""
import hashlib
import json
import os
import random
import struct
import subprocess
import sys

import craft
from craft import CLUSTER, COPIED, SECTOR, Qcow2, deflate, extension
from craft_qcow import Qcow
from craft_qcow import deflate as qcow_deflate
from harm import Harm, measured
from peers import KIB, MIB, add_case, main, platter, qemu_img, qemu_io, sha256, text_like, write_sparse

HERE = os.path.dirname(os.path.abspath(__file__))


def content(size, seed=1, holes=()):
    """Text, with clusters of zeros where `holes` says."""
    rng = random.Random(seed)
    data = bytearray(text_like(rng, size))
    for hole in holes:
        data[hole * CLUSTER:(hole + 1) * CLUSTER] = bytes(
            len(data[hole * CLUSTER:(hole + 1) * CLUSTER]))
    return bytes(data)


def cluster(data, index, size=CLUSTER):
    return data[index * size:(index + 1) * size]


# ---- the recipes: each answers its files by name (the first is the image) and the content -----

recipes = {}


def recipe(name):
    def note(function):
        recipes[name] = function
        return function
    return note


def plain_clusters(image, data, indexes):
    for index in indexes:
        image.data(index, cluster(data, index).ljust(CLUSTER, b"\0"))
    return image.image()


@recipe("qcow2-short-header")
def short_header():
    """Version 3 with a header of 104 bytes: no field for the compression."""
    data = content(3 * CLUSTER, holes=[1])
    return {"image": plain_clusters(Qcow2(len(data), header_length=104), data, [0, 2])}, data


@recipe("qcow2-long-header")
def long_header():
    """Fields of a time to come behind those we know, an extension nobody knows, unknown bits that
    may be ignored."""
    data = content(2 * CLUSTER)
    image = Qcow2(len(data), header_length=160, autoclear=1 << 50,
                  extensions=extension(0x0BADCAFE, b"what is this") + extension(
                      0x6803F857, struct.pack("BB46s", 0, 3, b"compression type")))
    image.head[120:160] = b"\xff" * 40
    return {"image": plain_clusters(image, data, [0, 1])}, data


@recipe("qcow2-version-2-extension")
def version_2():
    data = content(2 * CLUSTER)
    image = Qcow2(len(data), version=2, extensions=extension(0x0BADCAFE, b"abc"))
    return {"image": plain_clusters(image, data, [0, 1])}, data


@recipe("qcow2-odd-size")
def odd_size():
    """A disk that is not whole sectors in its header: the rest of the sector is not exposed."""
    data = content(CLUSTER + 1024)
    image = plain_clusters(Qcow2(len(data) + 300), data, [0, 1])
    return {"image": image}, data


@recipe("qcow2-ends-inside-last-cluster")
def ends_inside():
    """The file ends with the last byte of the disk, not with its cluster."""
    data = content(CLUSTER + 5 * SECTOR)
    image = Qcow2(len(data))
    image.data(0, cluster(data, 0))
    image.data(1, cluster(data, 1))
    return {"image": image.image()}, data


@recipe("qcow2-packed-straddles")
def packed_straddles():
    """Streams of noise and text byte behind byte, over the borders of host clusters; the last one
    ends with the file, inside its sector."""
    rng = random.Random(3)
    data = b"".join(text_like(rng, CLUSTER // 2) + rng.randbytes(CLUSTER // 2) for _ in range(6))
    image = Qcow2(len(data))
    for index in range(6):
        image.packed(index, deflate(cluster(data, index)))
    return {"image": image.image()}, data


@recipe("qcow2-packed-far-window")
def far_window():
    """A match from 30 KiB back: more than the 4 KiB that the peer's writer uses."""
    rng = random.Random(4)
    noise = rng.randbytes(30 * KIB)
    data = (noise + noise)[:CLUSTER].ljust(CLUSTER, b"z")
    image = Qcow2(len(data))
    stream = deflate(data, -15)
    assert len(stream) < 40 * KIB
    image.packed(0, stream)
    return {"image": image.image()}, data


@recipe("qcow2-packed-small-clusters")
def packed_small():
    """Clusters of 512 bytes, where one bit tells the length."""
    data = b"".join(bytes([65 + i]) * 512 for i in range(40))
    image = Qcow2(len(data), cluster_bits=9)
    for index in range(40):
        image.packed(index, deflate(cluster(data, index, 512)))
    return {"image": image.image()}, data


def zstd(data):
    """A frame that is stored, written by hand: no packer is needed, all readers know it."""
    assert len(data) < 1 << 17
    return b"\x28\xb5\x2f\xfd" + b"\xa0" + struct.pack("<I", len(data)) + \
        (len(data) << 3 | 1).to_bytes(3, "little") + data


@recipe("qcow2-zstd-two-frames")
def zstd_two_frames():
    """A cluster of two frames, with noise behind them up to the end of the sector."""
    half = CLUSTER // 2
    data = content(CLUSTER, 5)
    run = b"\x28\xb5\x2f\xfd" + b"\xa0" + struct.pack("<I", half) + \
        (half << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"q"
    data = b"q" * half + data[half:]
    image = Qcow2(2 * CLUSTER, incompatible=8, compression=1)
    image.packed(0, run + zstd(data[half:]) + b"\xee" * 100)
    return {"image": image.image()}, data + bytes(CLUSTER)


@recipe("qcow2-subclusters")
def subclusters():
    """Data in subclusters 0 and 3, zeros in 8; a cluster of zeros without a place; one with a place
    that is all reserved."""
    data = bytearray(4 * CLUSTER)
    sub = CLUSTER // 32
    body = content(CLUSTER, 6)
    image = Qcow2(4 * CLUSTER, incompatible=16, wide=True)
    place = image.end() | COPIED
    image.body += body
    reserved = image.end() | COPIED
    image.body += b"never seen".ljust(CLUSTER, b"!")
    image.entries = {0: (place, 0x0000010000000009), 1: (0, 0xFFFFFFFF << 32), 2: (reserved, 0)}
    for index in (0, 3):
        data[index * sub:(index + 1) * sub] = body[index * sub:(index + 1) * sub]
    return {"image": image.image()}, bytes(data)


@recipe("qcow2-zero-flag-hides-data")
def zero_flag():
    """Zero clusters with and without a place; the place has bytes that must not be seen."""
    data = content(4 * CLUSTER, holes=[1, 2])
    image = Qcow2(len(data))
    image.data(0, cluster(data, 0))
    image.data(1, b"hidden" * 10000 + bytes(5536), COPIED | craft.ZERO)
    image.data(3, cluster(data, 3))
    image.entries[2] = craft.ZERO
    return {"image": image.image()}, data


@recipe("qcow2-snapshot")
def snapshot():
    """The worked example of the reference: an L2 table that a snapshot shares, its COPIED flag
    clear, and a stale one in the snapshot's own table."""
    cs = 4096
    out = bytearray(0x8000 + 67)
    craft.put(out, 0, 0x514649FB, 4)
    for name, value in {"version": 3, "cluster_bits": 12, "size": MIB, "l1_size": 1,
                        "l1_table_offset": 0x3000, "refcount_table_offset": 0x1000,
                        "refcount_table_clusters": 1, "nb_snapshots": 1,
                        "snapshots_offset": 0x8000, "refcount_order": 4,
                        "header_length": 112}.items():
        craft.put_field(out, name, value)
    craft.put(out, 0x1000, 0x2000)
    for index, count in enumerate([1, 1, 1, 1, 2, 2, 2, 1, 1]):
        craft.put(out, 0x2000 + 2 * index, count, 2)
    craft.put(out, 0x3000, 0x4000)
    craft.put(out, 0x4000, 0x5000)
    craft.put(out, 0x4008, 0x6000)
    data = content(2 * cs, 7)
    out[0x5000:0x7000] = data
    craft.put(out, 0x7000, 0x4000 | COPIED)
    entry = struct.pack(">QIHHIIQII", 0x7000, 1, 1, 2, 1500000000, 0, 0, 0, 24) + \
        struct.pack(">QQQ", 0, MIB, 0) + b"1s1"
    out[0x8000:0x8000 + len(entry)] = entry
    return {"image": bytes(out)}, data.ljust(MIB, b"\0")


@recipe("qcow2-long-l1")
def long_l1():
    """More L1 entries than the disk needs, as a disk that shrank leaves them: what lies behind the
    end is nobody's."""
    data = content(2 * CLUSTER, 8)
    image = Qcow2(len(data))
    image.l1 += [0] * 6 + [4 * CLUSTER]
    struct.pack_into(">I", image.head, 36, len(image.l1))
    return {"image": plain_clusters(image, data, [0, 1])}, data


@recipe("qcow-tables-anywhere")
def qcow_anywhere():
    """An L1 table at an odd byte, L2 tables at others, clusters at sectors, in no order."""
    data = content(3 * MIB, 31)
    image = Qcow(len(data), cluster_bits=13, l2_bits=6, l1_at=61, table_align=8)
    for index in (300, 0, 64, 3, 2, 383):
        image.data(index, cluster(data, index, 8192), align=512)
    right = bytearray(len(data))
    for index in (300, 0, 64, 3, 2, 383):
        right[index * 8192:(index + 1) * 8192] = cluster(data, index, 8192)
    return {"image": image.image()}, bytes(right)


@recipe("qcow-packed-anywhere")
def qcow_packed():
    """Streams byte behind byte, one with more than a cluster in it, one with a match from far back,
    the last of them the end of the file."""
    rng = random.Random(32)
    noise = rng.randbytes(30 * KIB)
    data = text_like(rng, 3 * CLUSTER) + (noise + noise)[:CLUSTER].ljust(CLUSTER, b"z")
    image = Qcow(len(data), cluster_bits=16, l2_bits=6)
    for index in (2, 0):
        image.packed(index, qcow_deflate(cluster(data, index)))
    image.packed(3, qcow_deflate(cluster(data, 3), -15))
    image.packed(1, qcow_deflate(cluster(data, 1) + b"more than is asked for"))
    return {"image": image.image()}, data


@recipe("qcow-odd-size")
def qcow_odd_size():
    """A disk that is not whole sectors, and a file that ends with the last of them."""
    data = content(2 * 4096 + 1024, 33)
    image = Qcow(len(data) + 300)
    for index in (0, 1, 2):
        image.data(index, cluster(data, index, 4096))
    return {"image": image.image()}, data


@recipe("qcow-largest-tables")
def qcow_largest():
    data = content(CLUSTER, 34)
    image = Qcow(40 * MIB, cluster_bits=16, l2_bits=13)
    image.data(600, data)
    return {"image": image.image()}, (bytes(600 * CLUSTER) + data).ljust(40 * MIB, b"\0")


@recipe("vmdk-stream-footer")
def stream_footer():
    data = content(5 * CLUSTER, 11, holes=[1, 3])
    return {"image": craft.stream_vmdk(data)}, data


@recipe("vmdk-stream-capacity-in-footer")
def stream_late_capacity():
    """A writer that learned the size of the disk at its end."""
    data = content(3 * CLUSTER, 12)
    return {"image": craft.stream_vmdk(data, header_capacity=0)}, data


@recipe("vmdk-stream-progress-markers")
def stream_markers():
    """Markers of type 4 among the grains."""
    data = content(9 * CLUSTER, 13)
    return {"image": craft.stream_vmdk(data, kind4=True)}, data


@recipe("vmdk-stream-text-behind")
def stream_text_behind():
    """A tool that added its own lines behind the end."""
    data = content(2 * CLUSTER, 14)
    return {"image": craft.stream_vmdk(data, noise=b"# added\n".ljust(3 * SECTOR, b"\n"))}, data


@recipe("vmdk-stream-short-last-grain")
def stream_short_grain():
    """The last grain packed to its valid part only."""
    data = content(CLUSTER + 40 * SECTOR, 15)
    whole = craft.stream_vmdk(data)
    short = bytearray(whole)
    at = SECTOR * craft.le(short, SECTOR * craft.le(short, SECTOR * craft.le(
        short, len(short) - 1024 + 56, 8)) + 4)
    record = craft.grain_record(128, data[CLUSTER:])
    short[at:at + len(record)] = record
    return {"image": bytes(short)}, data


@recipe("vmdk-sparse-no-table")
def sparse_no_table():
    """A directory without a table: nothing is allocated."""
    return {"image": craft.sparse_vmdk(2048, {}, no_tables=True)}, bytes(MIB)


@recipe("vmdk-sparse-value-1")
def sparse_value_1():
    """The value 1 is a grain of zeros, whether the flag for it is set or not."""
    data = content(3 * CLUSTER, 16, holes=[1])
    grains = {0: cluster(data, 0), 1: 1, 2: cluster(data, 2)}
    return {"image": craft.sparse_vmdk(3 * 128, grains)}, data


@recipe("vmdk-sparse-zeroed-grain")
def sparse_zeroed():
    data = content(3 * CLUSTER, 17, holes=[1])
    grains = {0: cluster(data, 0), 1: 1, 2: cluster(data, 2)}
    return {"image": craft.sparse_vmdk(3 * 128, grains, flags=5, version=2)}, data


@recipe("vmdk-sparse-small-grains")
def sparse_small_grains():
    """Grains of 4 KiB, not in the order of the disk."""
    data = content(64 * KIB, 18)
    order = [5, 0, 15, 3, 1]
    right = bytearray(64 * KIB)
    for grain in order:
        right[grain * 4096:(grain + 1) * 4096] = cluster(data, grain, 4096)
    return {"image": craft.sparse_vmdk(128, {g: cluster(data, g, 4096) for g in order},
                                       grain=8)}, bytes(right)


@recipe("vmdk-sparse-short-last-grain")
def sparse_short_grain():
    """The file ends with the last byte of the disk, not with its grain."""
    data = content(CLUSTER + 3 * SECTOR, 19)
    return {"image": craft.sparse_vmdk(131, {0: cluster(data, 0), 1: cluster(data, 1)})}, data


@recipe("vmdk-flat-pieces")
def flat_pieces():
    """Lines as other programs write them: ends of DOS, blanks, read-only, zeros, two places of one
    file, case as it comes."""
    data = content(4 * CLUSTER, 20)
    lines = ['RW 128 FLAT "disk-flat.vmdk" 128', "RW 64 ZERO", 'RDONLY 128 FLAT "disk-flat.vmdk" 0',
             '  RW   7   FLAT   "other file.bin"   1  ']
    text = craft.descriptor("custom", lines, newline="\r\n").replace(b"CID=1", b"cid = 1", 1)
    right = cluster(data, 1) + bytes(64 * SECTOR) + cluster(data, 0) + data[SECTOR:8 * SECTOR]
    return {"image": text, "disk-flat.vmdk": data, "other file.bin": data[:8 * SECTOR]}, right


# ---- the test ------------------------------------------------------------------------------------

def told(fmt):
    """What we say of the image in this folder, but for what depends on the file system."""
    info = json.loads(platter("info", "--output=json", "-f", fmt, "image").stdout)
    del info["actual-size"]
    return {"info.json": info,
            "map.json": json.loads(platter("map", "--output=json", "-f", fmt, "image").stdout)}


def make(name):
    files, data = recipes[name]()
    for path, held in files.items():
        with open(path, "wb") as f:
            f.write(held)
    return name.split("-")[0], data


def check(self, name):
    fmt, data = make(name)
    with open("right.raw", "wb") as f:
        f.write(data)
    for file, now in told(fmt).items():
        with open(os.path.join(HERE, name, file), encoding="utf-8") as f:
            self.assertEqual(now, json.load(f), f"{name}/{file}")
    done = platter("digest", "--algorithm=sha256", "image")
    self.assertEqual(done.stdout.split()[0], hashlib.sha256(data).hexdigest())
    self.expect_good("image", fmt, "right.raw")
    platter("convert", "-c", "-O", "qcow2", "image", "copy")
    platter("compare", "-F", "raw", "copy", "right.raw")


class Golden(Harm):
    def test_folders_and_recipes_are_the_same(self):
        folders = {entry.name for entry in os.scandir(HERE)
                   if entry.is_dir() and not entry.name.startswith("_")}
        self.assertEqual(folders, set(recipes))

    def write(self):
        """Not a test: --write."""
        for name in recipes:
            os.makedirs(os.path.join(HERE, name), exist_ok=True)
            fmt, data = make(name)
            for file, now in told(fmt).items():
                with open(os.path.join(HERE, name, file), "w", encoding="utf-8") as f:
                    json.dump(now, f, indent=4)
                    f.write("\n")
            peer = subprocess.run(["qemu-img", "convert", "-f", fmt, "-O", "raw", "image", "peer"],
                                  capture_output=True, text=True)
            same = peer.returncode == 0 and sha256("peer") == hashlib.sha256(data).hexdigest()
            peer_map = subprocess.run(["qemu-img", "map", "--output=json", "-f", fmt, "image"],
                                      capture_output=True, text=True).stdout
            mapped = bool(peer_map) and json.loads(peer_map) == told(fmt)["map.json"]
            print(f"{name}: peer", "agrees" if same else peer.stderr.strip() or "reads otherwise",
                  "" if mapped else "(map differs)")


class Streams(Harm):
    """Directories at the end of large streams."""

    def test_one_table_of_three_gone(self):
        """In the middle of a stream: it stands behind its marker even so."""
        data = (content(2 * CLUSTER) + bytes(32 * MIB - 2 * CLUSTER)) * 3
        write_sparse("three.raw", data)
        whole = craft.stream_vmdk(data)
        for table in range(3):
            image = bytearray(whole)
            gd = SECTOR * craft.le(image, len(image) - 1024 + 56, 8)
            craft.put_le(image, gd + 4 * table, 0)
            with open("three.vmdk", "wb") as f:
                f.write(image)
            self.expect_error("three.vmdk", "vmdk", "three.raw", f"directory entry {table}")
            self.salvage_all("three.vmdk", "vmdk", "three.raw")

    def test_tables_of_other_ranges(self):
        """A directory that names them, each as good as any."""
        data = b"".join(content(2 * CLUSTER, seed).ljust(32 * MIB, b"\0") for seed in range(3))
        write_sparse("three.raw", data)
        whole = craft.stream_vmdk(data)
        for first, second, swap in ((0, 1, True), (1, 2, True), (0, 2, False), (2, 1, False)):
            image = bytearray(whole)
            gd = SECTOR * craft.le(image, len(image) - 1024 + 56, 8)
            place = craft.le(image, gd + 4 * first)
            craft.put_le(image, gd + 4 * first, craft.le(image, gd + 4 * second))
            if swap:
                craft.put_le(image, gd + 4 * second, place)
            with open("three.vmdk", "wb") as f:
                f.write(image)
            self.expect_error("three.vmdk", "vmdk", "three.raw", "directory entry")
            self.salvage_all("three.vmdk", "vmdk", "three.raw")

    def test_empty_tables_are_none(self):
        """Ranges without data have no table, in front, in between and at the end."""
        some = content(2 * CLUSTER)
        data = bytes(32 * MIB) + some + bytes(64 * MIB - len(some)) + some + bytes(64 * MIB)
        write_sparse("sparse.vmdk", craft.stream_vmdk(data))
        write_sparse("sparse.raw", data)
        self.expect_good("sparse.vmdk", "vmdk", "sparse.raw")


class Large(Harm):
    """Tables that are holes of the file are not read: a disk costs what it holds."""

    def test_empty_8_tib(self):
        """Within the second of processor time that hostile images have."""
        qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicSparse", "empty.vmdk",
                 8 << 40)
        for argv in (["convert", "-q", "-O", "qcow2", "empty.vmdk", "target"],
                     ["map", "empty.vmdk"]):
            code, said = measured(*argv)
            self.assertEqual(code, 0, said)

    def test_data_between_holes(self):
        """At both ends of tables, of what is read together, and of the disk."""
        size = (300 << 30) + 512
        qemu_img("create", "-q", "-f", "vmdk", "sparse.vmdk", size)
        for places in ((0, 512 << 20, (200 << 30) - 512),
                       ((32 << 20) - 512, 100 << 30, (100 << 30) + (512 << 20), 300 << 30)):
            qemu_io("sparse.vmdk", "vmdk", *(f"write -q -P {at % 251 + 1} {at} 512" for at in places))
            self.check_map("sparse.vmdk", "vmdk")
        qemu_img("convert", "-f", "vmdk", "-O", "qcow2", "sparse.vmdk", "theirs")
        platter("compare", "sparse.vmdk", "theirs")


for recipe_name in recipes:
    add_case(Golden, recipe_name, check, recipe_name)

if "--write" in sys.argv:
    Golden.test_write = Golden.write
    sys.argv = [sys.argv[0], "Golden.test_write"]
main()
