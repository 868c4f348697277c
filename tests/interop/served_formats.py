# SPDX-License-Identifier: MIT
"""Every format and shape, served: what nbdinfo, nbdcopy, qemu-io and qemu-img see and do there is what
the image has by itself, before, meanwhile and after.
"""
import json
import os
import random
import sys

from peers import KIB, MIB, add_case, main, make_content, platter, qemu_img, qemu_io, run, sha256
from serve import Serve, ServeCase

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden"))
from craft_esx import Cowd, SeSparse, text  # pylint: disable=wrong-import-position

SIZE = 6 * MIB + 512 * 3
SECTORS = SIZE // 512


def save(name, data):
    with open(name, "wb") as f:
        f.write(data)


# ---- makers: of disk.raw, in the test's folder; each returns what serve is given ----------------------

def converted(name, *options):
    platter("convert", "-f", "raw", *options, "disk.raw", name)
    return [name]


def raw():
    os.rename("disk.raw", "a.raw")
    run("cp", "a.raw", "disk.raw")
    return ["-f", "raw", "a.raw"]


def luks():
    save("key", b"correct horse")
    converted("a.luks", "-O", "luks", "-o", "iter-time=1", "--new-key-file", "key")
    return ["--key-file=key", "a.luks"]


def qcow2_luks():
    save("key", b"correct horse")
    converted("a.qcow2", "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.iter-time=1", "--new-key-file", "key")
    return ["--key-file=key", "a.qcow2"]


def with_backing(fmt, base_fmt, *options):
    """Over a shorter base, with a part of the disk in each."""
    with open("disk.raw", "rb") as f:
        save("short.raw", f.read(4 * MIB))
    platter("convert", "-f", "raw", "-O", base_fmt, "short.raw", "base")
    platter("create", "-q", "-f", fmt, *options, "-b", "base", "-F", base_fmt, f"a.{fmt}", SIZE)
    image = [f"--backing-format={base_fmt}", f"a.{fmt}"]  # a QCOW does not name it
    with Serve(*image) as s:
        with open("disk.raw", "r+b") as f:
            f.seek(3 * MIB + 512)
            f.write(b"\x21" * MIB)
        qemu_io(s.uri, "raw", f"write -P 0x21 {3 * MIB + 512} 1M")
        copy_part(s.uri, "disk.raw", 4 * MIB)
    return image


def copy_part(uri, name, start):
    """The bytes of a raw file from `start` on, to the same place of an export."""
    with open(name, "rb") as f:
        f.seek(start)
        save("part.raw", f.read())
    qemu_io(uri, "raw", f"write -s part.raw {start} {os.path.getsize('part.raw')}")


def vmfs_sparse():
    """As ESX makes snapshots: over a flat disk, empty at first."""
    run("cp", "disk.raw", "base-flat.vmdk")
    save("base.vmdk", text("vmfs", [f'RW {SECTORS} VMFS "base-flat.vmdk"'], cid="abcd"))
    save("a-delta.vmdk", Cowd(SECTORS).image())
    save("a.vmdk", text("vmfsSparse", [f'RW {SECTORS} VMFSSPARSE "a-delta.vmdk"'], parent="base.vmdk",
                        parent_cid="abcd"))
    return ["a.vmdk"]


def se_sparse():
    """Over a flat disk; a grain shows that nobody keeps its maps, so new ones may be had."""
    run("cp", "disk.raw", "base-flat.vmdk")
    save("base.vmdk", text("vmfs", [f'RW {SECTORS} VMFS "base-flat.vmdk"'], cid="abcd"))
    with open("disk.raw", "rb") as f:
        save("a-sesparse.vmdk", SeSparse(SECTORS, grains=SECTORS).add_all(f.read(), [0]).image())
    save("a.vmdk", text("seSparse", [f'RW {SECTORS} SESPARSE "a-sesparse.vmdk"'], parent="base.vmdk",
                        parent_cid="abcd"))
    return ["a.vmdk"]


def vmdk(kind, *more):
    return lambda: converted("a.vmdk", "-O", "vmdk", "-o", ",".join([f"subformat={kind}", *more]))


def qcow2(*options):
    return lambda: converted("a.qcow2", "-O", "qcow2", *(["-o", ",".join(options)] if options else []))


WRITABLE = {  # name: (format that the peer reads the file by, or None; maker)
    "raw": ("raw", raw),
    "luks": (None, luks),
    "qcow": ("qcow", lambda: converted("a.qcow", "-O", "qcow")),
    "qcow-packed": ("qcow", lambda: converted("a.qcow", "-c", "-O", "qcow")),
    "qcow2-v2": ("qcow2", qcow2("compat=0.10")),
    "qcow2": ("qcow2", qcow2()),
    "qcow2-small": ("qcow2", qcow2("cluster_size=512", "refcount_bits=1")),
    "qcow2-large": ("qcow2", qcow2("cluster_size=2M", "lazy_refcounts=on")),
    "qcow2-subclusters": ("qcow2", qcow2("extended_l2=on")),
    "qcow2-data-file": ("qcow2", qcow2("data_file=a.data")),
    "qcow2-data-file-raw": ("qcow2", qcow2("data_file=a.data", "data_file_raw=on")),
    "qcow2-zlib": ("qcow2", lambda: converted("a.qcow2", "-c", "-O", "qcow2")),
    "qcow2-zstd": ("qcow2", lambda: converted("a.qcow2", "-c", "-O", "qcow2", "-o", "compression_type=zstd")),
    "qcow2-luks": (None, qcow2_luks),
    "qcow2-backing": ("qcow2", lambda: with_backing("qcow2", "raw")),
    "qcow2-subclusters-backing": ("qcow2", lambda: with_backing("qcow2", "vmdk", "-o", "extended_l2=on")),
    "qcow-backing": ("qcow", lambda: with_backing("qcow", "qcow2")),
    "vmdk": ("vmdk", vmdk("monolithicSparse")),
    "vmdk-zeroed-grain": ("vmdk", vmdk("monolithicSparse", "zeroed_grain=on")),
    "vmdk-flat": ("vmdk", vmdk("monolithicFlat")),
    "vmdk-pieces": ("vmdk", vmdk("twoGbMaxExtentSparse")),
    "vmdk-flat-pieces": ("vmdk", vmdk("twoGbMaxExtentFlat")),
    "vmdk-vmfs": ("vmdk", vmdk("vmfs")),
    "vmdk-vmfs-sparse": ("vmdk", vmfs_sparse),
    "vmdk-se-sparse": ("vmdk", se_sparse),
}


def packed(program, *options):
    """A qcow2 inside of what another program made."""
    converted("a.qcow2", "-O", "qcow2")
    run(program, *options, "-q", "a.qcow2")
    return [name for name in os.listdir(".") if name.startswith("a.qcow2.")]


def archive(view):
    def make():
        make_content("small.raw", MIB, 9)
        platter("archive", "create", "-q", "-f", "raw", "a.vma", "-d", "drive-small=small.raw", "-d",
                "drive-scsi0=disk.raw")
        return [f"a.vma@{view}" if view else "a.vma"]
    return make


def snapshot(view):
    def make():
        converted("a.qcow2", "-O", "qcow2")
        platter("snapshot", "-c", "before", "a.qcow2")
        qemu_io("a.qcow2", "qcow2", "write -P 0x77 0 5M")
        return [f"a.qcow2@{view}" if view else "a.qcow2"]
    return make


READ_ONLY = {  # name: (maker, name of the export, options of serve)
    "qcow2-zlib": (lambda: converted("a.qcow2", "-c", "-O", "qcow2"), "", ["-r"]),
    "vmdk-stream": (vmdk("streamOptimized"), ""),
    "gzip": (lambda: packed("gzip"), ""),
    "zstd": (lambda: packed("zstd", "--rm"), ""),
    "xz": (lambda: packed("xz"), ""),
    "archive-export": (archive(None), "drive-scsi0"),
    "archive-disk": (archive("drive-scsi0"), ""),
    "snapshot-export": (snapshot(None), "before"),
    "snapshot": (snapshot("before"), ""),
}


class Base(ServeCase):
    # ---- what is told ----------------------------------------------------------------------------

    def nbdinfo(self, *options):
        return json.loads(run("nbdinfo", "--json", *options).stdout)

    def check_info(self, uri, read_only):  # pylint: disable=arguments-differ
        export = self.nbdinfo(uri)["exports"][0]
        self.assertEqual(export["export-size"], SIZE)
        self.assertEqual(self.nbdinfo("--size", uri), SIZE)
        self.assertEqual(export["is_read_only"], read_only)
        for can in ("trim", "zero", "fua"):
            self.assertEqual(export[f"can_{can}"], not read_only, can)
        for can in ("can_flush", "can_multi_conn", "can_df"):
            self.assertTrue(export[can], can)
        self.assertEqual(export["contexts"], ["base:allocation"])
        self.assertEqual(export["block_size_minimum"], 1)
        self.assertEqual(export["block_size_preferred"] & (export["block_size_preferred"] - 1), 0)
        self.assertGreaterEqual(export["block_size_preferred"], 4096)

    def check_totals(self, uri, image):
        """The map of the export, in ranges and in all, is that of the image."""
        ours = json.loads(platter("map", "-U", "--output=json", *image).stdout)
        right = {}
        for e in ours:
            kind = 0 if not e["zero"] else 2 if "offset" in e else 3
            right[kind] = right.get(kind, 0) + e["length"]
        totals = {e["type"]: e["size"] for e in self.nbdinfo("--map", "--totals", uri)}
        self.assertEqual(totals, right)
        ranges = self.nbdinfo("--map", uri)
        self.assertEqual(sum(e["length"] for e in ranges), SIZE)

    def check_bytes(self, uri, right, *how):
        run("nbdcopy", *how, uri, "copy.raw")
        self.assertEqual(sha256("copy.raw"), sha256(right))
        self.check_same(uri, right)

    # ---- what is written -------------------------------------------------------------------------

    def random_io(self, uri, shadow, seed):
        """qemu-io, the same into a raw file; what a discard leaves is for the image to say."""
        rng = random.Random(seed)
        commands, dropped = [], set()
        with open(shadow, "r+b") as f:
            for _ in range(50):
                length = rng.choice([512, 4 * KIB, 64 * KIB, 300 * KIB])
                off = rng.randrange((SIZE - length) // 512 + 1) * 512
                pattern = rng.randrange(1, 256)
                kind = rng.choice(["write", "write", "zero", "fua", "unmap", "discard", "aio"])
                sectors = range(off // 512, (off + length) // 512)
                zeros = kind in ("zero", "unmap")
                if kind == "discard":
                    dropped.update(sectors)
                    commands.append(f"discard {off} {length}")
                    continue
                f.seek(off)
                f.write(bytes([0 if zeros else pattern]) * length)
                dropped.difference_update(sectors)
                options = {"zero": "write -z", "unmap": "write -z -u", "fua": f"write -f -P {pattern}",
                           "aio": f"aio_write -P {pattern}"}.get(kind, f"write -P {pattern}")
                commands.append(f"{options} {off} {length}")
                commands += ["aio_flush"] if kind == "aio" else []
                commands.append(f"read -P {0 if zeros else pattern} {off} {length}")
                commands += ["flush"] * (rng.randrange(5) == 0)
        qemu_io(uri, "raw", *commands)
        self.settle_discards(uri, "raw", shadow, dropped)

    def check_after(self, image, fmt, shadow):
        """What is left when the server has ended."""
        platter("compare", "-f", "raw", shadow, *image[:-1], image[-1]) if not fmt else \
            qemu_img("compare", "-f", "raw", "-F", fmt, shadow, image[-1])
        if fmt != "raw":
            # What was packed and is written anew leaves room behind that a QCOW cannot use again.
            platter("check", "-q", *image, code={0, 3} if fmt == "qcow" else 0)
        if fmt == "qcow2":
            qemu_img("check", "-q", image[-1])


def beside(fmt, image, uri):
    """The peer has the image open beside the server, and the export."""
    if fmt:
        qemu_img("compare", "-U", "-f", fmt, "-F", "raw", image[-1], uri)


def writable(self, fmt, make):
    image = make()
    make_content("new.raw", SIZE, 3)
    with Serve(*image) as s:
        self.check_info(s.uri, False)
        listed = self.nbdinfo("--list", s.uri)["exports"]
        self.assertEqual([e["export-name"] for e in listed], [""])
        self.check_totals(s.uri, image)
        self.check_bytes(s.uri, "disk.raw")
        beside(fmt, image, s.uri)
        run("nbdcopy", "--connections=4", "--requests=16", "--flush", "new.raw", s.uri)
        self.random_io(s.uri, "new.raw", SIZE)
        self.check_bytes(s.uri, "new.raw", "--synchronous", "--no-extents")
        self.check_totals(s.uri, image)
        qemu_io(s.uri, "raw", "flush")
        beside(fmt, image, s.uri)
    self.check_after(image, fmt, "new.raw")


def read_only(self, make, name, options=()):
    image = make()
    with Serve(*options, *image) as s:
        uri = s.export(name)
        self.check_info(uri, True)
        listed = self.nbdinfo("--list", s.uri)["exports"]
        self.assertIn(name, [e["export-name"] for e in listed])
        self.check_totals(uri, [*image[:-1], f"{image[-1]}@{name}"] if name else image)
        self.check_bytes(uri, "disk.raw")
        done = run("qemu-io", "-f", "raw", uri, "-c", "write -P 1 0 512", code=1)
        self.assertIn("permission denied", (done.stdout + done.stderr).lower())


class Qcow2(Base):
    pass


class Others(Base):
    pass


for shape, what in WRITABLE.items():
    add_case(Qcow2 if shape.startswith("qcow2") else Others, f"writable-{shape}", writable, *what)
for shape, what in READ_ONLY.items():
    add_case(Others, f"read-only-{shape}", read_only, *what)


if __name__ == "__main__":
    main()
