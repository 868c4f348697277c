# SPDX-License-Identifier: MIT
"""The images that rows start from. The peer makes them, so that both programs read the peer's own
files; where it cannot in reasonable time, it makes the frame and the tables are filled in here."""
import os
import struct

import measure

CONVERTED = {
    "plain.qcow2": [],
    "zlib.qcow2": ["-c"],
    "zstd.qcow2": ["-c", "-o", "compression_type=zstd"],
    "sparse.vmdk": [],
    "stream.vmdk": ["-o", "subformat=streamOptimized"],
    "machine.vmdk": ["-o", "subformat=streamOptimized"],
    "machine.qcow2": [],
}
CREATED = {
    "empty.qcow2": ["8T"],
    "small.qcow2": ["1G"],
    "many.vmdk": ["2000G", "-o", "subformat=twoGbMaxExtentSparse"],  # 1,000 extents
    "spread.vmdk": ["64G"],
    "large.vmdk": ["1T"],
    "tables.qcow2": ["1T", "-o", "preallocation=metadata"],
    "changed.qcow2": ["64G", "-o", "preallocation=metadata"],
    "scattered.qcow2": ["8G", "-o", "cluster_size=4k"],
    "whole.qcow2": ["512M"],
    "whole.raw": ["512M"],
    "whole.vmdk": ["512M"],
    "blank.qcow2": ["4G"],
    "below.qcow2": ["4G"],
    "other.qcow2": ["4G"],
    "above.qcow2": ["4G", "-u", "-b", "copy.below.qcow2", "-F", "qcow2"],
}
SECTOR = 512
GRAIN = 128  # sectors
GTES = 512  # entries of a grain table
SPREAD = 64  # grains from one that is written to the next, in spread.vmdk: 1 GiB of data
ALLOCATED = 20 << 30  # bytes that the tables of large.vmdk give out
CLUSTER = 65536
ODD = 25717  # steps of so many units visit every unit of 2**n, in no order


def image_format(name):
    return name.rsplit(".", 1)[1]


def convert(name):
    disk = "disk.raw"
    if name.startswith("machine."):  # one that boots
        disk = measure.run([measure.root() / "tools" / "make-machine"]).output.strip()
    measure.run(["qemu-img", "convert", "-f", "raw", *CONVERTED[name], "-O", image_format(name),
                 disk, "unfinished"])
    os.rename("unfinished", name)


def create(name):
    """Images of several files cannot be renamed: what is there already is made anew."""
    size, *options = CREATED[name]
    measure.run(["qemu-img", "create", "-q", "-f", image_format(name), *options, name, size])


def write_spread(name):
    """One grain in every SPREAD, each with data."""
    step = SPREAD * GRAIN * SECTOR
    measure.run(["qemu-img", "bench", "-w", "-f", "vmdk", "-c", str((64 << 30) // step),
                 "-s", str(GRAIN * SECTOR), "-S", str(step), name])


def directories(file):
    """Where the two grain directories of a sparse VMDK stand, and the first sector for grains."""
    header = file.read(SECTOR)
    return struct.unpack_from("<QQQ", header, 48)


def fill_tables(name):
    """Gives grains out as if 20 GiB were written; the data is a hole, as nobody reads it."""
    with open(name, "r+b") as file:
        rgd, gd, overhead = directories(file)
        tables = (1 << 40) // (GTES * GRAIN * SECTOR)
        each = ALLOCATED // (GRAIN * SECTOR) // tables
        for directory in [rgd, gd]:
            file.seek(directory * SECTOR)
            sectors = struct.unpack(f"<{tables}I", file.read(tables * 4))
            for number, sector in enumerate(sectors):
                first = overhead + number * each * GRAIN
                file.seek(sector * SECTOR)
                file.write(struct.pack(f"<{each}I", *range(first, first + each * GRAIN, GRAIN)))
        file.truncate(overhead * SECTOR + ALLOCATED)


def write(name, count, size, step=None, offset=0, pattern=1):
    measure.run(["qemu-img", "bench", "-w", "-f", image_format(name), "-c", count, "-s", size, "-S", step or size,
                 "-o", offset, f"--pattern={pattern}", name])


def change_after_snapshot(name):
    """A snapshot, and a little written everywhere since, so that it shares no L2 table."""
    measure.run(["qemu-img", "snapshot", "-c", "old", name])
    write(name, 1024, 4096, 64 << 20)


def write_scattered(name):
    """Neighbours of the disk are none in the file."""
    write(name, 1 << 17, 4096, ODD * 4096)


def write_above(name):
    """Every second cluster of 256 MiB that are below as well, and 64 MiB that are not."""
    measure.run(["qemu-img", "create", "-q", "-f", "qcow2", "copy.below.qcow2", "4G"])
    write(name, 2048, CLUSTER, 2 * CLUSTER, pattern=3)
    write(name, 1024, CLUSTER, offset=1 << 30, pattern=3)
    os.remove("copy.below.qcow2")


def write_other(name):
    """Half of what is in below.qcow2, and as much that is different."""
    write(name, 4096, CLUSTER)
    write(name, 4096, CLUSTER, offset=256 << 20, pattern=2)


FILLED = {
    "spread.vmdk": write_spread,
    "large.vmdk": fill_tables,
    "changed.qcow2": change_after_snapshot,
    "scattered.qcow2": write_scattered,
    **dict.fromkeys(("whole.qcow2", "whole.raw", "whole.vmdk"), lambda name: write(name, 8192, CLUSTER)),
    "below.qcow2": lambda name: write(name, 8192, CLUSTER),
    "other.qcow2": write_other,
    "above.qcow2": write_above,
}


def make_vma(platter, name, *more):
    measure.run([platter, "archive", "create", "-q", "-f", "raw", "--reproducible", name,
                 "-d", "drive-scsi0=disk.raw", *more])


def make_digested(platter, name):
    make_vma(platter, name, "--digest")


def make_both(platter, name):
    """A small disk behind the large one."""
    with open("small.raw", "wb") as file:
        file.write(os.urandom(4 << 20) + bytes(12 << 20))
    make_vma(platter, name, "-d", "drive-small=small.raw")


def pack(platter, name):
    """As a backup of Proxmox VE is packed: in one frame."""
    if not os.path.exists("disk.vma"):
        make_vma(platter, "disk.vma")
    measure.run(["zstd", "-q", "-f", "-T1", "disk.vma", "-o", name])


def make_vast(platter, name):
    measure.run([measure.root() / "build" / "release" / "bench" / "vast", name])
    measure.run([platter, "archive", "index", "-q", name])


ARCHIVES = {
    "disk.vma": make_vma,
    "digested.vma": make_digested,
    "both.vma": make_both,
    "disk.vma.zst": pack,
    "vast.vma": make_vast,
}
COLD = {"vast.vma"}  # of these only an index is read


def copy_of(name):
    """What a row may change, which is made anew for each run."""
    return f"copy.{name}"


def make(name, platter):
    if name in ARCHIVES:
        ARCHIVES[name](platter, name)
    elif name in CONVERTED:
        convert(name)
    else:
        create(name)
    if name in FILLED:
        FILLED[name](name)


def make_all(names, platter):
    """Makes what is not there yet, or is older than the disk."""
    disk = os.stat("disk.raw").st_mtime
    for name in sorted(names - {"disk.raw"}):
        if not os.path.exists(name) or os.stat(name).st_mtime < disk:
            print(f"making {name}", flush=True)
            try:
                make(name, platter)
            except (OSError, SystemExit):
                if os.path.exists(name):
                    os.remove(name)
                raise
