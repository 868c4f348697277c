# SPDX-License-Identifier: MIT
"""qcow2 in the sizes, chains and forms that options do not tell: odd ends, huge disks, backing
files of every kind and length, external data files, zero clusters over data."""
import json
import os

from peers import (GIB, KIB, MIB, TIB, Case, add_case, main, make_content, platter, qemu_img,
                   qemu_io, run, sha256)

SIZES = [0, 512, 64 * KIB - 512, 64 * KIB + 512, MIB + 512]


def odd_size(self, size):
    qemu_img("create", "-q", "-f", "qcow2", "peer.qcow2", size)
    self.check_read("peer.qcow2", "qcow2")
    make_content("content.raw", size, size)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "content.raw", "plain.qcow2")
    self.check_read("plain.qcow2", "qcow2", "content.raw")
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "content.raw", "packed.qcow2")
    self.check_read("packed.qcow2", "qcow2", "content.raw")
    platter("create", "-q", "-f", "qcow2", "empty.qcow2", size)
    qemu_img("check", "empty.qcow2")
    qemu_img("compare", "empty.qcow2", "peer.qcow2")
    for how in ([], ["-c"], ["-c", "-o", "compression_type=zstd"], ["-S", "0"]):
        platter("convert", *how, "-f", "raw", "-O", "qcow2", "content.raw", "ours.qcow2")
        self.check_written("ours.qcow2", "qcow2", "content.raw")


class Sizes(Case):
    def test_sparse_3g(self):
        make_content("big.raw", 3 * GIB, 3)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "big.raw", "peer.qcow2")
        self.check_map("peer.qcow2", "qcow2")
        self.check_info("peer.qcow2", "qcow2")
        self.check_digest("peer.qcow2", "qcow2", "big.raw")
        platter("compare", "-F", "raw", "peer.qcow2", "big.raw")
        for how in ([], ["-c"]):
            platter("convert", *how, "-f", "raw", "-O", "qcow2", "big.raw", "ours.qcow2")
            self.check_written("ours.qcow2", "qcow2", "big.raw")

    def test_empty_8t(self):
        for maker in (qemu_img, platter):
            maker("create", "-q", "-f", "qcow2", "huge.qcow2", 8 * TIB)
            qemu_img("check", "huge.qcow2")
            self.check_map("huge.qcow2", "qcow2")
            self.check_info("huge.qcow2", "qcow2")
            platter("convert", "-O", "qcow2", "huge.qcow2", "copy.qcow2")
            qemu_img("check", "copy.qcow2")
            platter("compare", "-s", "huge.qcow2", "copy.qcow2")
            qemu_io("copy.qcow2", "qcow2", f"write -P 7 {8 * TIB - 65536} 65536")
            done = platter("compare", "huge.qcow2", "copy.qcow2", code=1)
            self.assertIn(str(8 * TIB - 65536), done.stdout)

    def test_far_data_in_8t(self):
        qemu_img("create", "-q", "-f", "qcow2", "peer.qcow2", 8 * TIB)
        qemu_io("peer.qcow2", "qcow2", *[f"write -P {i + 1} {i * TIB + i * 4096} 70k"
                                         for i in range(8)])
        self.check_map("peer.qcow2", "qcow2")
        platter("convert", "-O", "qcow2", "peer.qcow2", "ours.qcow2")
        qemu_img("check", "ours.qcow2")
        qemu_img("compare", "ours.qcow2", "peer.qcow2")
        self.check_map("ours.qcow2", "qcow2")


for disk in SIZES:
    add_case(Sizes, f"size-{disk}", odd_size, disk)


class Chains(Case):
    def layer(self, fmt, name, size, seed):
        make_content("layer.raw", size, seed)
        run("cp", "--sparse=always", "layer.raw", name) if fmt == "raw" else \
            qemu_img("convert", "-f", "raw", "-O", fmt, "layer.raw", name)

    def over(self, base, base_fmt, top, size, options=""):
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", base_fmt, *options, top, size)

    def write_over(self, image, size):
        at = [0, 64 * KIB + 512, size // 2 // 512 * 512, size - 4096 - 512]
        qemu_io(image, "qcow2", f"write -P 1 {at[0]} 3k", f"write -P 2 {at[1]} 512",
                f"write -z {at[2]} 70k", f"write -P 4 {at[3]} 4608", f"write -z -u 256k 128k",
                "discard 512k 64k")

    def both_ways(self, base_fmt, base_size, top_size, options=()):
        """Over a base: the peer's overlay read by us, our overlay written by us."""
        self.layer(base_fmt, "base", base_size, base_size)
        before = sha256("base")
        self.over("base", base_fmt, "top.qcow2", top_size, options)
        self.check_read("top.qcow2", "qcow2")
        self.write_over("top.qcow2", top_size)
        self.check_read("top.qcow2", "qcow2")
        platter("create", "-q", "-f", "qcow2", "-b", "base", "-F", base_fmt, *options, "ours.qcow2",
                top_size)
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "ours.qcow2", "shadow.raw")
        self.check_written("ours.qcow2", "qcow2", "shadow.raw")
        self.poke("ours.qcow2", "qcow2", "shadow.raw", 77)
        self.check_written("ours.qcow2", "qcow2", "shadow.raw")
        self.assertEqual(sha256("base"), before, "the base was changed")

    def test_raw_base(self):
        self.both_ways("raw", 2 * MIB + 512, 2 * MIB + 512)

    def test_raw_base_not_whole_sectors(self):
        """The peer rounds the base up to a sector, so that its map has a last entry of padding in
        the base that ours has not; the disk is the same."""
        self.layer("raw", "base", MIB + 100, 9)
        self.over("base", "raw", "top.qcow2", 2 * MIB)
        for writes in (False, True):
            if writes:
                self.write_over("top.qcow2", 2 * MIB)
            qemu_img("convert", "-O", "raw", "top.qcow2", "peer.raw")
            self.check_digest("top.qcow2", "qcow2", "peer.raw")
            platter("compare", "-F", "raw", "top.qcow2", "peer.raw")

    def test_qcow2_base(self):
        self.both_ways("qcow2", 2 * MIB + 512, 2 * MIB + 512)

    def test_vmdk_base(self):
        self.both_ways("vmdk", 2 * MIB, 2 * MIB)

    def test_shorter_base(self):
        self.both_ways("qcow2", MIB + 1536, 3 * MIB)

    def test_shorter_raw_base(self):
        self.both_ways("raw", MIB + 1536, 3 * MIB)

    def test_longer_base(self):
        self.both_ways("qcow2", 3 * MIB, MIB + 512)

    def test_subclusters(self):
        self.both_ways("raw", 2 * MIB + 512, 2 * MIB + 512, ("-o", "extended_l2=on"))

    def test_version_2(self):
        self.both_ways("qcow2", 2 * MIB + 512, 2 * MIB + 512, ("-o", "compat=0.10"))

    def test_small_clusters(self):
        self.both_ways("qcow2", MIB, 2 * MIB, ("-o", "cluster_size=512"))

    def test_relative_name_in_other_folder(self):
        os.makedirs("images/bases")
        self.layer("qcow2", "images/bases/base.qcow2", MIB, 5)
        self.over("bases/base.qcow2", "qcow2", "images/top.qcow2", MIB)
        self.check_read("images/top.qcow2", "qcow2")
        done = platter("info", "--output=json", "--backing-chain", "images/top.qcow2")
        theirs = qemu_img("info", "--output=json", "--backing-chain", "images/top.qcow2")
        for ours, peer in zip(json.loads(done.stdout), json.loads(theirs.stdout), strict=True):
            self.assertEqual(ours, {**ours, **peer})

    def test_chain_of_four(self):
        self.layer("raw", "0", 2 * MIB, 4)
        self.over("0", "raw", "1", 2 * MIB + 512)
        self.over("1", "qcow2", "2", 3 * MIB)
        self.over("2", "qcow2", "3", 2 * MIB + 1024, ("-o", "cluster_size=4k"))
        for number, image in enumerate("123"):
            qemu_io(image, "qcow2", f"write -P {number + 1} {number * 200 * KIB} 100k",
                    f"write -z {MIB + number * 130 * KIB} 64k",
                    f"write -P 9 {64 * KIB + number * 512} 512")
        self.check_read("3", "qcow2")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "3", "shadow.raw")
        self.poke("3", "qcow2", "shadow.raw", 44)
        self.check_written("3", "qcow2", "shadow.raw")

    def test_base_size_is_taken(self):
        self.layer("qcow2", "base", 3 * MIB + 512, 1)
        platter("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "ours.qcow2")
        self.check_written("ours.qcow2", "qcow2", "layer.raw")

    def test_overlay_smaller_then_larger(self):
        """A short layer in the middle hides what lies behind its end."""
        self.layer("raw", "base", 3 * MIB, 1)
        self.over("base", "raw", "middle", MIB)
        self.over("middle", "qcow2", "top", 3 * MIB)
        self.check_read("top", "qcow2")
        qemu_io("top", "qcow2", "write -P 3 2M 512")
        self.check_read("top", "qcow2")


class DataFiles(Case):
    def both_ways(self, raw):
        option = f"data_file_raw={raw}"
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file=peer.data,{option}", "peer.qcow2",
                 2 * MIB + 512)
        self.check_read("peer.qcow2", "qcow2")
        qemu_io("peer.qcow2", "qcow2", "write -P 1 0 3k", "write -P 2 100k 300k",
                "write -z 128k 64k", "write -z -u 1M 64k", "write -P 3 2M 512", "discard 192k 64k")
        self.check_read("peer.qcow2", "qcow2")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", "peer.qcow2", "shadow.raw")
        self.poke("peer.qcow2", "qcow2", "shadow.raw", 5)
        self.check_written("peer.qcow2", "qcow2", "shadow.raw")
        if raw == "on":
            qemu_img("compare", "-f", "raw", "-F", "raw", "peer.data", "shadow.raw")

    def test_data_file(self):
        self.both_ways("off")

    def test_raw_data_file(self):
        self.both_ways("on")

    def test_raw_data_file_alone_is_the_disk(self):
        make_content("content.raw", 2 * MIB + 512, 6)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o",
                 "data_file=peer.data,data_file_raw=on", "content.raw", "peer.qcow2")
        self.check_read("peer.qcow2", "qcow2", "content.raw")
        platter("compare", "-f", "raw", "-F", "qcow2", "peer.data", "peer.qcow2")


class ZeroClusters(Case):
    def test_zeros_hide_data_and_base(self):
        make_content("base", 4 * MIB, 8)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top", 4 * MIB)
        qemu_io("top", "qcow2", "write -P 5 0 1M", "write -z 0 64k", "write -z -u 64k 64k",
                "write -z 2M 1M", "write -z -u 3M 100k", "write -z 3400k 3k", "discard 256k 128k",
                "write -P 6 2100k 1k")
        self.check_read("top", "qcow2")
        platter("convert", "-O", "qcow2", "-B", "base", "-F", "raw", "top", "ours")
        qemu_img("check", "ours")
        qemu_img("compare", "ours", "top")
        self.check_map("ours", "qcow2")

    def test_packed_over_base_and_rewritten(self):
        make_content("base", 2 * MIB, 8)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top", 2 * MIB)
        qemu_io("top", "qcow2", *[f"write -c -P {i} {i * 128}k 64k" for i in range(1, 15)],
                "write -P 99 130k 3k", "write -z 256k 64k", "write -z -u 384k 64k",
                "discard 512k 64k")
        self.check_read("top", "qcow2")
        qemu_img("convert", "-O", "raw", "top", "shadow.raw")
        self.poke("top", "qcow2", "shadow.raw", 12)
        self.check_written("top", "qcow2", "shadow.raw")


main()
