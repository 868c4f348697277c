# SPDX-License-Identifier: MIT
"""VMDK of the peer's making read and written by us, of our making read and written by the peer."""
import os
import random

from peers import (GIB, KIB, MIB, Case, add_case, main, make_content, platter, qemu_img, qemu_io,
                   spread)

# A disk of no bytes is none: the peer does not open what it created then.
SIZES = {"sector": 512, "short-grain": 64 * KIB - 512, "long-grain": 64 * KIB + 512,
         "two-tables": 33 * MIB, "ragged": 3 * MIB + 7 * 512}


def make_peer(size, subformat, name="peer.vmdk", **more):
    options = ",".join([f"subformat={subformat}", *(f"{k}={v}" for k, v in more.items())])
    qemu_img("create", "-q", "-f", "vmdk", "-o", options, name, size)


def peer_writes(image, size, seed):
    rng = random.Random(seed)
    commands = [rng.choice([f"write -P {rng.randrange(1, 255)} {off} {length}",
                            f"write -z {off} {length}"])
                for off, length in spread(size, seed, 20)]
    qemu_io(image, "vmdk", *commands)


def sparse(self, size, zeroed):
    """monolithicSparse, all ways."""
    make_peer(size, "monolithicSparse", zeroed_grain=zeroed)
    self.check_read("peer.vmdk", "vmdk")
    peer_writes("peer.vmdk", size, size)
    self.check_read("peer.vmdk", "vmdk")
    qemu_img("convert", "-O", "raw", "peer.vmdk", "shadow.raw")
    self.poke("peer.vmdk", "vmdk", "shadow.raw", size)
    self.check_written("peer.vmdk", "vmdk", "shadow.raw")
    platter("create", "-q", "-f", "vmdk", "-o", f"subformat=monolithicSparse,zeroed_grain={zeroed}",
            "ours.vmdk", size)
    with open("empty.raw", "wb") as f:
        f.truncate(size)
    self.check_written("ours.vmdk", "vmdk", "empty.raw")
    self.poke("ours.vmdk", "vmdk", "empty.raw", size + 1)
    self.check_written("ours.vmdk", "vmdk", "empty.raw")
    peer_writes("ours.vmdk", size, size + 2)
    self.check_read("ours.vmdk", "vmdk")


def flat(self, size):
    make_peer(size, "monolithicFlat")
    self.check_read("peer.vmdk", "vmdk")
    peer_writes("peer.vmdk", size, size)
    self.check_read("peer.vmdk", "vmdk")


def converted(self, size, subformat):
    """The same content through either program."""
    make_content("content.raw", size, size)
    option = f"subformat={subformat}"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", option, "content.raw", "peer.vmdk")
    self.check_read("peer.vmdk", "vmdk", "content.raw")
    platter("convert", "-f", "raw", "-O", "vmdk", "-o", option, "content.raw", "ours.vmdk")
    self.check_written("ours.vmdk", "vmdk", "content.raw")
    self.check_read("ours.vmdk", "vmdk", "content.raw")


class Vmdk(Case):
    def sparse_5g(self, subformat):
        make_content("big.raw", 5 * GIB, 5)
        option = f"subformat={subformat}"
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", option, "big.raw", "peer.vmdk")
        self.check_map("peer.vmdk", "vmdk")
        self.check_info("peer.vmdk", "vmdk")
        platter("compare", "-F", "raw", "peer.vmdk", "big.raw")
        platter("convert", "-f", "raw", "-O", "vmdk", "-o", option, "big.raw", "ours.vmdk")
        self.check_written("ours.vmdk", "vmdk", "big.raw")

    def test_sparse_5g(self):
        self.sparse_5g("monolithicSparse")

    def test_stream_5g(self):
        self.sparse_5g("streamOptimized")

    def test_flat_5g(self):
        make_content("big.raw", 5 * GIB, 5)
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", "big.raw",
                 "peer.vmdk")
        platter("compare", "-F", "raw", "peer.vmdk", "big.raw")
        self.check_map("peer.vmdk", "vmdk")

    def test_split(self):
        """Several sparse files, the last with a ragged end, and a flat one between."""
        sizes = {"a": MIB, "b": 2 * MIB, "c": MIB + 7 * 512}
        for name in "ac":
            make_peer(sizes[name], "monolithicSparse", f"{name}.vmdk", zeroed_grain="on")
        with open("b.vmdk", "wb") as f:
            f.truncate(sizes["b"])
        lines = [f'RW {size // 512} SPARSE "{name}.vmdk"' if name != "b"
                 else f'RW {size // 512} FLAT "{name}.vmdk" 0' for name, size in sizes.items()]
        with open("disk.vmdk", "w", encoding="ascii") as f:
            f.write("# Disk DescriptorFile\nversion=1\nCID=00000012\nparentCID=ffffffff\n"
                    'createType="twoGbMaxExtentSparse"\n' + "\n".join(lines) + "\n")
        with open("shadow.raw", "wb") as f:
            f.truncate(sum(sizes.values()))
        self.check_read("disk.vmdk", "vmdk", "shadow.raw")
        for seed in range(3):
            self.poke("disk.vmdk", "vmdk", "shadow.raw", seed)
            self.check_read("disk.vmdk", "vmdk", "shadow.raw")

    def test_parent(self):
        self.parent(3 * MIB, 3 * MIB)

    def test_shorter_parent(self):
        self.parent(MIB + 512, 3 * MIB)

    def parent(self, parent_size, size):
        make_content("content.raw", parent_size, 2)
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "content.raw", "parent.vmdk")
        qemu_img("create", "-q", "-f", "vmdk", "-b", "parent.vmdk", "-F", "vmdk", "-o",
                 "zeroed_grain=on", "child.vmdk", size)
        self.check_read("child.vmdk", "vmdk")
        qemu_io("child.vmdk", "vmdk", "write -P 1 0 3k", "write -z 64k 64k", "write -P 2 900k 200k",
                f"write -P 3 {size - 512} 512")
        self.check_read("child.vmdk", "vmdk")
        qemu_img("convert", "-O", "raw", "child.vmdk", "shadow.raw")
        self.poke("child.vmdk", "vmdk", "shadow.raw", 3)
        self.check_written("child.vmdk", "vmdk", "shadow.raw")

    def test_stream_over_a_parent_is_refused(self):
        """It would leave out what is zero, which the parent would then show."""
        make_content("content.raw", MIB, 2)
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "content.raw", "parent.vmdk")
        with open("zeros.raw", "wb") as f:
            f.truncate(MIB)
        done = platter("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized",
                       "-B", "parent.vmdk", "-F", "vmdk", "zeros.raw", "child.vmdk", code=1)
        self.assertIn("child.vmdk", done.stderr)
        self.assertFalse(os.path.exists("child.vmdk"))

    def test_grandchild(self):
        make_peer(2 * MIB, "monolithicSparse", "0.vmdk")
        for number in range(3):
            qemu_io(f"{number}.vmdk", "vmdk", f"write -P {number + 1} {number * 100}k 150k")
            qemu_img("create", "-q", "-f", "vmdk", "-b", f"{number}.vmdk", "-F", "vmdk",
                     f"{number + 1}.vmdk")
        self.check_read("3.vmdk", "vmdk")

    def test_changed_parent_is_refused(self):
        """A write into a parent changes its content ID: the child does not fit it any more."""
        make_peer(MIB, "monolithicSparse", "parent.vmdk")
        qemu_img("create", "-q", "-f", "vmdk", "-b", "parent.vmdk", "-F", "vmdk", "child.vmdk")
        qemu_io("parent.vmdk", "vmdk", "write -P 1 0 64k")
        done = platter("convert", "-O", "raw", "child.vmdk", "new.raw", code=1)
        self.assertIn("child.vmdk", done.stderr)
        self.assertFalse(os.path.exists("new.raw"))

    def test_our_write_changes_the_content_id(self):
        make_peer(MIB, "monolithicSparse", "parent.vmdk")
        qemu_img("create", "-q", "-f", "vmdk", "-b", "parent.vmdk", "-F", "vmdk", "child.vmdk")
        with open("shadow.raw", "wb") as f:
            f.truncate(MIB)
        self.poke("parent.vmdk", "vmdk", "shadow.raw", 1)
        qemu_img("convert", "-O", "raw", "child.vmdk", "new.raw", code=1)

    def test_stream_of_packed_zeros_and_noise(self):
        """Grains that do not shrink, grains of zeros, and nothing at the end."""
        with open("content.raw", "wb") as f:
            f.write(os.urandom(64 * KIB) + bytes(64 * KIB) + b"x" * 64 * KIB)
            f.truncate(40 * MIB)
        for maker in (qemu_img, platter):
            maker("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized",
                  "content.raw", "made.vmdk")
            self.check_read("made.vmdk", "vmdk", "content.raw")


for size_name, bytes_of in SIZES.items():
    for zeroed_grain in ("off", "on"):
        add_case(Vmdk, f"sparse-{size_name}-zeroed-{zeroed_grain}", sparse, bytes_of, zeroed_grain)
    for kind in ("monolithicSparse", "streamOptimized"):
        add_case(Vmdk, f"convert-{size_name}-{kind}", converted, bytes_of, kind)
    add_case(Vmdk, f"flat-{size_name}", flat, bytes_of)

main()
