# SPDX-License-Identifier: MIT
"""Every creation option of qcow2: the peer's images read by us, ours read and checked by the peer.

Each set of options goes five ways: made and written by the peer; made by the peer and written in
place by us; made by us and written in place by us; made by us and written by the peer; converted by
us.
"""
import random
import sys

from peers import (KIB, MIB, Case, add_case, main, make_content, platter, qemu_img, qemu_io, spread)


def options_text(options):
    return ",".join(f"{key}={value}" for key, value in options.items())


def sets():
    """All sets of options that are worth a test, by name."""
    sizes = {"512": 512, "1k": KIB, "4k": 4 * KIB, "64k": 64 * KIB, "2M": 2 * MIB}
    for name, cluster in sizes.items():
        base = {"cluster_size": cluster}
        yield f"{name}-v2", {**base, "compat": "0.10"}
        yield f"{name}-v3", {**base, "compat": "1.1"}
        yield f"{name}-lazy", {**base, "lazy_refcounts": "on"}
        # zstd has no use for clusters below 4 KiB, but the formats allow it.
        yield f"{name}-zstd", {**base, "compression_type": "zstd"}
    for name in ("64k", "2M"):
        for codec in ("zlib", "zstd"):
            yield f"{name}-subclusters-{codec}", {"cluster_size": sizes[name], "extended_l2": "on",
                                                  "compression_type": codec}
    yield "16k-subclusters", {"cluster_size": 16 * KIB, "extended_l2": "on"}
    for bits in (1, 2, 4, 8, 32, 64):
        for name in ("512", "64k"):
            yield f"{name}-refcount-{bits}", {"cluster_size": sizes[name], "refcount_bits": bits}
    for mode in ("metadata", "falloc", "full"):
        for name in ("512", "64k", "2M"):
            yield f"{name}-{mode}", {"cluster_size": sizes[name], "preallocation": mode}
        yield f"64k-subclusters-{mode}", {"cluster_size": 64 * KIB, "extended_l2": "on",
                                          "preallocation": mode}


def disk_size(options):
    """Small for small clusters, so that tables have much to say; never whole clusters."""
    cluster = options["cluster_size"]
    if cluster <= KIB:
        return 1537 * 512
    return (9 * MIB if cluster == 2 * MIB else 2 * MIB) + 1536


def packs(options):
    """A count of one bit has no room for two packed clusters in one: the peer gives up there."""
    return "preallocation" not in options and options.get("refcount_bits") != 1


def peer_writes(image, size, cluster, seed, packed):
    """Everything qemu-io can do to a disk, in seeded places."""
    rng = random.Random(seed)
    commands = []
    if packed:
        for index in rng.sample(range(size // cluster), min(6, size // cluster)):
            commands.append(f"write -c -P {rng.randrange(1, 255)} {index * cluster} {cluster}")
    for off, length in spread(size, seed + 1, 28):
        commands.append(rng.choice([
            f"write -P {rng.randrange(1, 255)} {off} {length}",
            f"write -P {rng.randrange(1, 255)} {off} {length}",
            f"write -z {off} {length}",
            f"write -z -u {off} {length}",
            f"discard {off} {length}"]))
    qemu_io(image, "qcow2", *commands)


def blank(size):
    with open("shadow.raw", "wb") as f:
        f.truncate(size)
    return "shadow.raw"


def peer_makes(self, options, seed):
    size = disk_size(options)
    qemu_img("create", "-q", "-f", "qcow2", "-o", options_text(options), "peer.qcow2", size)
    self.check_read("peer.qcow2", "qcow2", blank(size))
    peer_writes("peer.qcow2", size, options["cluster_size"], seed, packs(options))
    self.check_read("peer.qcow2", "qcow2")


def peer_makes_we_write(self, options, seed):
    size = disk_size(options)
    qemu_img("create", "-q", "-f", "qcow2", "-o", options_text(options), "theirs.qcow2", size)
    peer_writes("theirs.qcow2", size, options["cluster_size"], seed, packs(options))
    qemu_img("convert", "-f", "qcow2", "-O", "raw", "theirs.qcow2", "shadow.raw")
    self.poke("theirs.qcow2", "qcow2", "shadow.raw", seed)
    self.check_written("theirs.qcow2", "qcow2", "shadow.raw")


def we_make(self, options, seed):
    size = disk_size(options)
    platter("create", "-q", "-f", "qcow2", "-o", options_text(options), "ours.qcow2", size)
    self.check_written("ours.qcow2", "qcow2", blank(size))
    self.poke("ours.qcow2", "qcow2", "shadow.raw", seed)
    self.check_written("ours.qcow2", "qcow2", "shadow.raw")
    peer_writes("ours.qcow2", size, options["cluster_size"], seed, False)
    qemu_img("check", "-f", "qcow2", "ours.qcow2")
    self.check_read("ours.qcow2", "qcow2")


def we_convert(self, options, seed):
    make_content("source.raw", disk_size(options), seed)
    platter("convert", "-f", "raw", "-O", "qcow2", "-o", options_text(options), "source.raw",
            "new.qcow2")
    self.check_written("new.qcow2", "qcow2", "source.raw")
    if packs(options):
        platter("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options_text(options),
                "source.raw", "packed.qcow2")
        self.check_written("packed.qcow2", "qcow2", "source.raw")
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options_text(options),
                 "source.raw", "theirs.qcow2")
        self.check_read("theirs.qcow2", "qcow2", "source.raw")
        self.poke("packed.qcow2", "qcow2", "source.raw", seed, 10)
        self.check_written("packed.qcow2", "qcow2", "source.raw")


class Qcow2Options(Case):
    pass


# The sets are dealt out over several programs, which run side by side: "N/M" is part N of M.
part, parts = map(int, sys.argv.pop(1).split("/"))
for number, (set_name, chosen) in enumerate(sets()):
    if number % parts == part:
        for way in (peer_makes, peer_makes_we_write, we_make, we_convert):
            add_case(Qcow2Options, f"{set_name}-{way.__name__}", way, chosen, 1000 + number)

main()
