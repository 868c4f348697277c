# SPDX-License-Identifier: MIT
"""What is measured: the rows of the table."""
from dataclasses import dataclass, field

from images import CLUSTER, GRAIN, ODD, SECTOR, SPREAD, copy_of, image_format

TIMES = 100  # a run of "info" is this many, as one is too short to measure

ZSTD = ["-o", "compression_type=zstd"]
STREAM = ["-o", "subformat=streamOptimized"]
REPRODUCIBLE = ["-q", "-f", "raw", "--reproducible"]
STEP = 509 * SPREAD * GRAIN * SECTOR  # visits every grain that is written, in no order

@dataclass
class Row:
    """One line of the table."""

    name: str
    sources: list
    limit: float  # most of the peer's time; None: see `seconds`
    command: list = field(default_factory=list)  # both programs take it
    target: str = None  # what it writes
    changed: list = field(default_factory=list)  # sources of which it is given copies, to change them
    proofs: list = field(default_factory=list)  # commands that must succeed after platter's run
    peer: list = None  # the peer's command, where that is another program; "platter" is ours
    peer_label: str = None  # what it is called, where that is not its first word
    tuned: bool = False  # the peer is also run with -m 16 -W, and the better one counts
    unsafe: bool = False  # also measured without waiting for the disk, as the peer does
    script: str = None  # of the shell, where one command is not enough: $PLATTER is ours
    served: list = None  # by nbdkit, so: "URI" in commands is where
    repeat: int = 1
    size_limit: float = None  # most of the size of the peer's target
    seconds: float = None  # most seconds, whatever the peer takes
    later: float = None  # most seconds that it takes more than the peer
    memory: int = 128 << 20  # most bytes at the peak
    floors: list = field(default_factory=list)  # (what it is called, command)
    servers: list = field(default_factory=list)  # (command, port) of what runs meanwhile
    ceph: bool = False  # a Ceph runs meanwhile, with its S3 gateway
    stored: list = field(default_factory=list)  # files that are in S3 as well, in the bucket "bench"


def floor(mode):
    return f"{mode}, all cores, in memory", ["floor", mode, "disk.raw"]


COPY = [("cp --sparse=always", ["cp", "--sparse=always", "disk.raw", "floor.out"]),
        ("cp, then sync", ["sh", "-c", "cp --sparse=always disk.raw floor.out && sync floor.out"])]


def convert(name, source, target, limit, *options, **more):
    command = ["convert", "-f", image_format(source), "-O", image_format(target), *options]
    return Row(name, [source], limit, command + [source, target], target=target, tuned=True,
               unsafe=True, **more)


def change(name, sources, command, *proofs, changed=None, **more):
    """A row that changes copies of its sources, or of some; the first of them is what is checked."""
    changed = changed or sources
    check = ["qemu-img", "check", "-q", copy_of(sources[0])]
    return Row(name, sources, 1.0, command, changed=changed, proofs=[check, *proofs], **more)


def snapshot(verb, option, name, like):
    """`like`: the image, or the view of it, whose disk the copy then has."""
    image = "changed.qcow2"
    return change(f"snapshot-{verb}", [image], ["snapshot", option, name, copy_of(image)],
                  ["platter", "compare", "-q", like, copy_of(image)])


def requests(image, depth, unit, *options):
    """Requests of 4 KiB here and there, one or 16 at a time."""
    return ["bench", "-q", "-f", "qcow2", "-d", str(depth), "-s", "4096", "-S", str(ODD * unit), *options,
            image]


def archive(name, verb, sources, options, limit, peer, **more):
    """A row of archives, beside the copy of a raw disk where nothing else is said."""
    return Row(f"vma-{name}", sources, limit, [*verb, *options],
               peer=peer or ["cp", "--sparse=always", "disk.raw", more.get("target", "floor.out")], **more)


def create(name, options, target, limit, peer, proof, **more):
    return archive(name, ["archive", "create"], ["disk.raw", "disk.vma"],
                   [*REPRODUCIBLE, *options, target, "-d", "drive-scsi0=disk.raw"], limit, peer, target=target,
                   proofs=[proof, ["platter", "verify", "-q", target]], unsafe=True, **more)


def extract_small(name, *options):
    """One small disk beside a large one, against all of them; both wait for the disk, or neither."""
    return archive(name, ["extract"], ["disk.raw", "both.vma"],
                   ["-q", *options, "-d", "drive-small", "both.vma", "small.out.raw"], 0.02,
                   ["platter", "extract", "-q", *options, "-o", "floor.out", "both.vma"],
                   peer_label="platter, all disks", target="small.out.raw",
                   proofs=[["cmp", "small.raw", "small.out.raw"]])


def extract(name, source, limit, peer=None, **more):
    return archive(name, ["extract"], ["disk.raw", source],
                   ["-q", "-d", "drive-scsi0", source, "out.raw"], limit, peer, target="out.raw", unsafe=True,
                   **more)


WEB = (["nginx", "-p", ".", "-e", "nginx.log", "-c", "../nginx.conf"], 47880)
FAR = (["../delay.py", "47890", "47880", "10"], 47890)  # 10 ms each way


def web(name, limit, servers):
    """qemu-img with several requests at a time stands still with the curl it has in Debian 12."""
    url = f"http://127.0.0.1:{servers[-1][1]}/zlib.qcow2"
    command = ["convert", "-f", "qcow2", "-O", "qcow2", url, "out.qcow2"]
    return Row(name, ["disk.raw", "zlib.qcow2"], limit, command, target="out.qcow2", unsafe=True,
               peer=["qemu-img", command[0], "-m", "1", *command[1:]], peer_label="qemu-img -m 1",
               servers=servers)


def rbd(name, limit, *peer):
    image = "rbd:rbd/out"
    return Row(name, ["disk.raw"], limit, ["convert", "-f", "raw", "-O", "raw", "disk.raw", image], target=image,
               peer=[*peer], ceph=True,
               proofs=[["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", "disk.raw", image]])


def note_peak(process):
    """A line of the shell: the memory that a server had at most, for run_once()."""
    return f'sed -n "s/VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p" /proc/{process}/status >server.peak'


NOTE_OURS = note_peak('$(pgrep -of "nbdkit.*$unixsocket")')


def serve(name, image, rw, depth, unit, amount, limit=0.9):
    """A load of fio's on a disk that is served, beside the peer's server; both end with all durable."""
    kind, writes = image_format(image), "write" in rw
    load = (f"fio --name=x --ioengine=nbd --uri=$uri --rw={rw} --bs={unit} --iodepth={depth} --io_size={amount} "
            "--end_fsync=1 --output=/dev/null")
    used = copy_of(image) if writes else image
    peer = (f"qemu-nbd -f {kind} -k $PWD/nbd.sock -t --fork --pid-file=nbd.pid {used} && "
            f"uri=nbd+unix:///?socket=$PWD/nbd.sock && {load} && {note_peak('$(cat nbd.pid)')} && kill $(cat nbd.pid) && "
            "while kill -0 $(cat nbd.pid) 2>/dev/null; do sleep 0.01; done")
    proofs = [["platter", "check", "-q", used]] if writes and kind != "raw" else []
    return Row(f"serve-{name}-{rw}-{depth}", [image], limit,
               ["serve", "-f", kind, *([] if writes else ["-r"]), "--exec", f"{load} && {NOTE_OURS}", used],
               changed=[image] if writes else [], proofs=proofs,
               peer=["sh", "-c", peer if writes else peer.replace("qemu-nbd", "qemu-nbd -r", 1)],
               peer_label="qemu-nbd")


SERVED = [serve(image.rsplit(".", 1)[1], image, rw, depth, unit, f"{amount * (3 if depth > 1 else 1)}M")
          for image in ("whole.qcow2", "whole.raw", "whole.vmdk")
          for rw, unit, amount in (("randread", "4k", 80), ("randwrite", "4k", 80), ("read", "256k", 1024),
                                   ("write", "256k", 1024))
          for depth in (1, 16)]


def migrated(source):
    """From a migration that is prepared to the first word of a kernel that boots from its target."""
    return (f'rm -f out.qcow2* && "$PLATTER" migrate prepare -O qcow2 {source} out.qcow2 && "$PLATTER" migrate serve '
            f"--exec '../kernel.py \"$uri\" && {NOTE_OURS}' out.qcow2 && rm out.qcow2*")


def reads(depth):
    return Row(f"read-{depth}", ["whole.qcow2"], 1.0,
               requests("whole.qcow2", depth, 4096, "-c", "100000"))


def writes(name, image, depth, unit, count):
    return change(f"{name}-{depth}", [image],
                  requests(copy_of(image), depth, unit, "-w", "-c", str(count), "--pattern=7"))


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
    Row("check-qcow2", ["tables.qcow2"], 0.5, ["check", "-f", "qcow2", "tables.qcow2"],
        memory=64 << 20),
    Row("map", ["scattered.qcow2"], 0.5, ["map", "--output=json", "-f", "qcow2", "scattered.qcow2"]),
    Row("measure", ["scattered.qcow2"], 1.0,
        ["measure", "-f", "qcow2", "-O", "qcow2", "scattered.qcow2"]),
    snapshot("create", "-c", "new", "changed.qcow2"),
    snapshot("apply", "-a", "old", "changed.qcow2@old"),
    snapshot("delete", "-d", "old", "changed.qcow2"),
    change("commit", ["above.qcow2", "below.qcow2"], ["commit", "-q", copy_of("above.qcow2")],
           ["qemu-img", "check", "-q", copy_of("below.qcow2")],
           ["qemu-img", "compare", "-q", "above.qcow2", copy_of("below.qcow2")]),
    change("rebase", ["above.qcow2", "below.qcow2", "other.qcow2"],
           ["rebase", "-q", "-b", "other.qcow2", "-F", "qcow2", copy_of("above.qcow2")],
           ["qemu-img", "compare", "-q", "above.qcow2", copy_of("above.qcow2")],
           changed=["above.qcow2", "below.qcow2"]),
    *[reads(depth) for depth in (1, 16)],
    *[writes("write", "whole.qcow2", depth, 4096, 100000) for depth in (1, 16)],
    *[writes("fill", "blank.qcow2", depth, CLUSTER, 8192) for depth in (1, 16)],
    create("create", [], "out.vma", 2.0, None, ["cmp", "disk.vma", "out.vma"], floors=COPY),
    extract("extract", "disk.vma", 1.5, floors=COPY),
    archive("verify", ["verify"], ["disk.raw", "disk.vma"], ["-q", "disk.vma"], 0.05, None),
    archive("verify-digest", ["verify"], ["disk.raw", "digested.vma"], ["-q", "digested.vma"], 0.1,
            ["sha256sum", "disk.raw"], floors=[floor("sha256")]),
    create("create-zstd", ["--compression=zstd"], "out.vma.zst", 1.1,
           ["zstd", "-q", "-f", "-T0", "disk.vma", "-o", "out.vma.zst"],
           ["sh", "-c", "zstd -q -d -c out.vma.zst | cmp - disk.vma"], size_limit=1.05,
           floors=[floor("zstd")]),
    extract("extract-zstd", "disk.vma.zst", 1.2, ["sh", "-c", "zstd -q -d -c disk.vma.zst > /dev/null"],
            peer_label="zstd -dc"),
    extract_small("extract-small"),
    extract_small("extract-small-unsafe", "-t", "unsafe"),
    web("http", 0.5, [WEB]),
    web("http-20ms", 0.2, [WEB, FAR]),
    Row("nbd-read", ["disk.raw"], 1.0, ["convert", "-t", "unsafe", "-f", "raw", "-O", "raw", "URI", "out.raw"],
        target="out.raw", served=["file", "disk.raw"], peer=["nbdcopy", "URI", "out.raw"]),
    Row("nbd-read-flush", ["disk.raw"], 1.0, ["convert", "-f", "raw", "-O", "raw", "URI", "out.raw"],
        target="out.raw", served=["file", "disk.raw"], peer=["nbdcopy", "--flush", "URI", "out.raw"],
        peer_label="nbdcopy --flush"),
    Row("nbd-write", ["disk.raw"], 1.0, ["convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", "URI"],
        served=["memory", "8G"], peer=["nbdcopy", "--flush", "disk.raw", "URI"], memory=4 << 30),  # the server's
    *SERVED,
    serve("packed", "zlib.qcow2", "randread", 16, "64k", "1G", 0.77),
    rbd("rbd", 0.7),
    rbd("rbd-tuned", 1.0, "qemu-img", "convert", "-m", "16", "-W", "-f", "raw", "-O", "raw", "disk.raw", "rbd:rbd/out"),
    rbd("rbd-import", 1.0, "rbd", "import", "--no-progress", "disk.raw", "rbd/out"),
    Row("boot-s3", ["machine.vmdk", "machine.qcow2"], None, script=migrated("s3://bench/machine.vmdk"), ceph=True,
        stored=["machine.vmdk"], peer=["sh", "-c", migrated("machine.vmdk")], peer_label="platter, local file",
        later=2.0, floors=[("qemu, local qcow2", ["../kernel.py", "machine.qcow2", "qcow2"])],
        memory=1 << 30),  # the machine's
    Row("vma-open", ["vast.vma"], None, ["bench", "-q", "-f", "vma", "-c", "1", "-s", "4096", "vast.vma"],
        peer=["stat", "vast.vma"], seconds=0.05),
]
