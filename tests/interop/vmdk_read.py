# SPDX-License-Identifier: MIT
"""Every VMDK that qemu-img makes, read by us: each subformat, with and without zeroed grains, at all
sizes where something ends; chains of them; and our writes into them, read back by the peer."""
import os
import random

from peers import (GIB, KIB, KINDS, MIB, Case, add_case, main, make_content, platter, qemu_img,
                   qemu_io, run)

SIZES = {"sector": 512, "short-grain": 64 * KIB - 512, "grain": 64 * KIB,
         "long-grain": 64 * KIB + 512, "ragged": 3 * MIB + 7 * 512, "short-piece": 2 * GIB - 512, "piece": 2 * GIB,
         "long-piece": 2 * GIB + 512, "5g": 5 * GIB}
SPARSE = ("monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized")
FLAT = ("monolithicFlat", "twoGbMaxExtentFlat")
PIECE = 2 * GIB  # of the peer's split images


def options(kind, zeroed="off", **more):
    more = {"subformat": kind, **more, **({"zeroed_grain": "on"} if zeroed == "on" else {})}
    return ",".join(f"{key}={value}" for key, value in more.items())


def content(size, seed):
    """Data at both ends, and across the border of two pieces."""
    make_content("content.raw", size, seed)
    if size > PIECE + 8 * KIB:
        with open("content.raw", "r+b") as f:
            f.seek(PIECE - 5000)
            f.write(b"border" * 2000)
    return "content.raw"


class Read(Case):
    def check(self, image, raw):
        """Content, map, and what is told; for large disks without reading all of it twice."""
        platter("compare", "-f", "vmdk", "-F", "raw", image, raw)
        self.check_map(image, "vmdk")
        self.check_info(image, "vmdk")
        if os.path.getsize(raw) < 64 * MIB:
            self.check_read(image, "vmdk", raw)

    def made(self, size, kind, zeroed):
        raw = content(size, size % 1000)
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", options(kind, zeroed), raw, "peer.vmdk")
        self.check("peer.vmdk", raw)
        said = run("vmdkinfo", "peer.vmdk").stdout
        self.assertIn(f"Disk type:\t\t\t{KINDS[kind]}\n", said)
        self.assertIn(f"({size} bytes)", said)

    def written(self, size, kind, zeroed):
        """What qemu-io wrote, zeroed and left alone; then what we write."""
        qemu_img("create", "-q", "-f", "vmdk", "-o", options(kind, zeroed), "peer.vmdk", size)
        with open("shadow.raw", "wb") as f:
            f.truncate(size)
        rng = random.Random(size)
        commands = []
        for place in {0, size // 2 // 512 * 512, max(0, size - 40 * KIB), max(0, min(
                size - 9000 // 512 * 512, PIECE - 4096))}:
            length = min(size - place, 8192) // 512 * 512
            commands += [f"write -P {rng.randrange(1, 255)} {place} {length}",
                         f"write -z {place} 512"]
        qemu_io("peer.vmdk", "vmdk", *commands)
        qemu_io("shadow.raw", "raw", *commands)
        self.check("peer.vmdk", "shadow.raw")
        self.poke("peer.vmdk", "vmdk", "shadow.raw", size)
        qemu_img("check", "-f", "vmdk", "peer.vmdk", code={0, 63})
        qemu_img("compare", "-f", "vmdk", "-F", "raw", "peer.vmdk", "shadow.raw")
        self.check("peer.vmdk", "shadow.raw")

    def test_no_bytes(self):
        """The peer makes such an image, and cannot open it."""
        qemu_img("create", "-q", "-f", "vmdk", "peer.vmdk", 0)
        with open("none.raw", "wb"):
            pass
        self.check_digest("peer.vmdk", "vmdk", "none.raw")


class Chains(Case):
    def overlay(self, name, below, size, kind, zeroed="off"):
        qemu_img("create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", "-o",
                 options(kind, zeroed), name, size)

    def chain(self, base, middle, top):
        """Three of them, each with something of its own, zeros that hide what is below, and more
        space than the one below."""
        size = 3 * MIB + 512
        make_content("content.raw", size, 5)
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", options(base), "content.raw", "0.vmdk")
        self.overlay("1.vmdk", "0.vmdk", size + 200 * KIB, middle, "on")
        qemu_io("1.vmdk", "vmdk", "write -P 1 100k 200k", "write -z 512k 128k",
                f"write -P 2 {size - 512} 1k")
        self.overlay("2.vmdk", "1.vmdk", size + 300 * KIB, top, "on")
        qemu_io("2.vmdk", "vmdk", "write -P 3 200k 3k", "write -z 64k 64k", "write -P 4 576k 64k",
                f"write -P 5 {size + 250 * KIB} 512")
        for name in ("1.vmdk", "2.vmdk"):
            self.check_read(name, "vmdk")
        qemu_img("convert", "-O", "raw", "2.vmdk", "shadow.raw")
        self.poke("2.vmdk", "vmdk", "shadow.raw", 7)
        self.check_written("2.vmdk", "vmdk", "shadow.raw")


for kind_of in SPARSE + FLAT:
    for zeroed_grain in ("off", "on") if kind_of in SPARSE else ("off",):
        for size_name, bytes_of in SIZES.items():
            add_case(Read, f"made-{kind_of}-{zeroed_grain}-{size_name}", Read.made, bytes_of,
                     kind_of, zeroed_grain)
            if kind_of != "streamOptimized" and size_name in ("ragged", "long-piece"):
                add_case(Read, f"written-{kind_of}-{zeroed_grain}-{size_name}", Read.written,
                         bytes_of, kind_of, zeroed_grain)
for base_kind in SPARSE + FLAT:
    for kind_of in ("monolithicSparse", "twoGbMaxExtentSparse"):
        top_kind = "twoGbMaxExtentSparse" if kind_of == "monolithicSparse" else "monolithicSparse"
        add_case(Chains, f"{base_kind}-{kind_of}-{top_kind}", Chains.chain, base_kind, kind_of,
                 top_kind)

main()
