# SPDX-License-Identifier: MIT
"""What is measured: the rows of the table."""
from dataclasses import dataclass, field

from images import GRAIN, SECTOR, SPREAD, image_format

TIMES = 100  # a run of "info" is this many, as one is too short to measure

ZSTD = ["-o", "compression_type=zstd"]
STREAM = ["-o", "subformat=streamOptimized"]
STEP = 509 * SPREAD * GRAIN * SECTOR  # visits every grain that is written, in no order

@dataclass
class Row:
    """One line of the table."""

    name: str
    sources: list
    limit: float  # most of the peer's time; None: see `seconds`
    command: list = field(default_factory=list)  # both programs take it
    target: str = None  # what it writes
    peer: list = None  # the peer's command, where that is another program
    tuned: bool = False  # the peer is also run with -m 16 -W, and the better one counts
    unsafe: bool = False  # also measured without waiting for the disk, as the peer does
    repeat: int = 1
    size_limit: float = None  # most of the size of the peer's target
    seconds: float = None  # most seconds, whatever the peer takes
    memory: int = 128 << 20  # most bytes at the peak
    floors: list = field(default_factory=list)  # (what it is called, command)


def floor(mode):
    return f"{mode}, all cores, in memory", ["floor", mode, "disk.raw"]


COPY = [("cp --sparse=always", ["cp", "--sparse=always", "disk.raw", "floor.out"]),
        ("cp, then sync", ["sh", "-c", "cp --sparse=always disk.raw floor.out && sync floor.out"])]


def convert(name, source, target, limit, *options, **more):
    command = ["convert", "-f", image_format(source), "-O", image_format(target), *options]
    return Row(name, [source], limit, command + [source, target], target=target, tuned=True,
               unsafe=True, **more)


ROWS = [
    convert("raw-qcow2", "disk.raw", "out.qcow2", 0.8, floors=COPY),
    convert("qcow2-raw", "plain.qcow2", "out.raw", 0.8, floors=COPY),
    convert("raw-zlib", "disk.raw", "out.qcow2", 0.25, "-c", size_limit=1, floors=[floor("zlib")]),
    convert("raw-zstd", "disk.raw", "out.qcow2", 0.75, "-c", *ZSTD, size_limit=1,
            floors=[floor("zstd")]),
    convert("zlib-raw", "zlib.qcow2", "out.raw", 0.45, floors=[floor("unzlib"), *COPY]),
    convert("zstd-raw", "zstd.qcow2", "out.raw", 0.7, floors=[floor("unzstd"), *COPY]),
    convert("raw-stream", "disk.raw", "out.vmdk", 0.2, *STREAM, size_limit=1.02,
            floors=[floor("zlib")]),
    convert("stream-raw", "stream.vmdk", "out.raw", 0.25,
            floors=[floor("unzlib"), *COPY]),
    convert("stream-qcow2", "stream.vmdk", "out.qcow2", 0.25,
            floors=[floor("unzlib"), *COPY]),
    convert("raw-sparse", "disk.raw", "out.vmdk", 0.3, floors=COPY),
    convert("sparse-raw", "sparse.vmdk", "out.raw", 0.5, floors=COPY),
    Row("compare", ["disk.raw", "zlib.qcow2"], 0.25,
        ["compare", "-f", "raw", "-F", "qcow2", "disk.raw", "zlib.qcow2"],
        floors=[floor("unzlib")]),
    Row("digest", ["disk.raw"], 0.1, ["digest", "-f", "raw", "disk.raw"],
        peer=["sha256sum", "disk.raw"], floors=[floor("sha256")]),
    Row("info", ["small.qcow2"], 0.3, ["info", "small.qcow2"], repeat=TIMES),
    Row("extents", ["many.vmdk"], None, ["info", "many.vmdk"], seconds=0.05),
    Row("random", ["spread.vmdk"], 0.7,
        ["bench", "-f", "vmdk", "-c", "200000", "-s", "4096", "-S", str(STEP), "spread.vmdk"]),
    Row("check", ["large.vmdk"], None, ["check", "-f", "vmdk", "large.vmdk"], seconds=2.0,
        memory=64 << 20),
    convert("empty", "empty.qcow2", "out.qcow2", 0.2, seconds=1.0),
]
