# SPDX-License-Identifier: MIT
"""Backups there and back: three disks, one of which ends inside a cluster, one is empty and one a
file system with files; configurations and the memory of the machine; through files, pipes and each
program that packs, to every format. The other side is a writer of the test's own, the programs
themselves, and qemu-img."""
import json
import os
import random
import subprocess

from peers import MIB, PLATTER, Case, main, make_content, platter, qemu_img, run, sha256, text_like
import vma_reader
from vma_writer import CLUSTER, archive, clusters

CONFIGS = (("qemu-server.conf", b"memory: 512\n#qmdump#map:scsi0:drive-scsi0:local:raw:\n"),
           ("qemu-server.fw", b"[OPTIONS]\n\nenable: 1\n"))
DISKS = {1: "drive-scsi0", 2: "drive-efidisk0", 3: "drive-virtio1"}
STATE = 4
# What packs standard input, and what unpacks it.
PACKERS = {"zst": ("zstd -q -c", "zstd -d -q -c"),
           "multi.zst": ("split -b 3000000 --filter='zstd -q -c'", "zstd -d -q -c"),
           "gz": ("gzip -c --rsyncable", "zcat"),
           "pigz.gz": ("pigz -c", "zcat"),
           "lzo": ("lzop -c", "lzop -d -c"),
           "bz2": ("bzip2 -c", "bzcat -q"),
           "xz": ("xz -1 -c", "xz -d -c")}
FORMATS = {"raw": [], "qcow2": [], "vmdk": [], "stream.vmdk": ["--options", "subformat=streamOptimized"]}


def pack(suffix, source, target):
    run("sh", "-c", f"{PACKERS[suffix][0]} < {source} > {target}")


def format_of(name):
    return name.rsplit(".", 1)[-1]


def piped(command, *argv):
    """platter with the output of a shell command as its standard input."""
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as feeder:
        return platter(*argv, stdin=feeder.stdout)


class Archive(Case):
    def setUp(self):
        super().setUp()
        make_content("1.raw", 5 * MIB + 512 * 7, 1)
        with open("2.raw", "wb") as f:
            f.truncate(540672)
        self.make_file_system("3.raw")
        rng = random.Random(4)
        with open("state.bin", "wb") as f:
            f.write(rng.randbytes(3 * CLUSTER) + bytes(2 * CLUSTER) + text_like(rng, CLUSTER))

    def make_file_system(self, name):
        os.mkdir("tree")
        rng = random.Random(3)
        for i in range(40):
            with open(f"tree/{i}", "wb") as f:
                f.write(text_like(rng, rng.randrange(90000)))
        run("mkfs.ext4", "-q", "-F", "-d", "tree", name, "6M")

    def write_by_hand(self, name):
        """As a running machine is backed up: the disks in turns, some clusters early."""
        slots = [s for i in DISKS for s in clusters(i, f"{i}.raw")]
        random.Random(5).shuffle(slots)
        for at, s in enumerate(clusters(STATE, "state.bin", full=True)):
            slots.insert(at * 20, s)
        devices = {i: (n, os.path.getsize(f"{i}.raw")) for i, n in DISKS.items()}
        archive(name, {**devices, STATE: ("vmstate", 1)}, slots, configs=CONFIGS)

    def check_folder(self, folder, suffix=".raw"):
        for i, name in DISKS.items():
            ours, raw = f"{folder}/{name}{suffix}", f"{i}.raw"
            if suffix == ".raw":
                self.assertEqual(sha256(ours), sha256(raw), ours)
            qemu_img("compare", "-q", "-f", format_of(ours), "-F", "raw", ours, raw)
        self.assertEqual(sha256(f"{folder}/vmstate.bin"), sha256("state.bin"))
        for name, content in CONFIGS:
            with open(f"{folder}/{name}", "rb") as f:
                self.assertEqual(f.read(), content)

    def check_archive(self, name, digests=False):
        """However it comes, all that was put in comes out."""
        done = platter("verify", "--output=json", name)
        self.assertEqual(json.loads(done.stdout)["digests"], digests)
        platter("extract", "-q", "-o", "out", name)
        self.check_folder("out")
        piped(f"cat {name}", "extract", "-q", "-o", "piped", "-")
        self.check_folder("piped")
        run("rm", "-r", "out", "piped")

    def check_by_hand(self, name, state=True):
        """A reader of the test's own finds what was put in, and nothing but what the rules allow."""
        disks, configs, _, _ = vma_reader.read(name)
        files = {n: f"{i}.raw" for i, n in DISKS.items()} | ({"vmstate": "state.bin"} if state else {})
        self.assertEqual(set(disks), set(files))
        for disk, path in files.items():
            with open(path, "rb") as f:
                self.assertEqual(disks[disk], f.read(), disk)
        self.assertEqual(configs, list(CONFIGS))

    def write_configs(self):
        for name, content in CONFIGS:
            with open(name, "wb") as f:
                f.write(content)

    def check_views(self, name):
        for i, disk in DISKS.items():
            platter("compare", "-q", "-F", "raw", f"{name}@{disk}", f"{i}.raw")

    def test_every_wrapper(self):
        self.write_by_hand("x.vma")
        self.check_archive("x.vma")
        self.check_views("x.vma")
        for suffix in PACKERS:
            pack(suffix, "x.vma", f"x.vma.{suffix}")
            self.check_archive(f"x.vma.{suffix}")

    def test_every_format(self):
        self.write_by_hand("x.vma")
        for name, options in FORMATS.items():
            folder = f"out.{name}"
            platter("extract", "-q", "-o", folder, "-O", format_of(name), *options, "x.vma")
            self.check_folder(folder, "." + format_of(name))

    def test_vma_create(self):
        """In the words of the peer, to a file and to a pipe."""
        self.write_configs()
        words = [w for name, _ in CONFIGS for w in ("-c", name)]
        words += [w for i, name in DISKS.items() for w in ("-d", f"format=raw:{name}={i}.raw")]
        platter("vma", "create", "x.vma", *words)
        self.check_by_hand("x.vma", state=False)
        self.check_views("x.vma")
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "1.raw", "1.qcow2")
        words[-6 + 1] = f"format=qcow2:{DISKS[1]}=1.qcow2"
        os.mkfifo("fifo")
        with subprocess.Popen(["sh", "-c", "cat fifo > piped.vma"]) as reader:
            platter("vma", "create", "fifo", *words)
            self.assertEqual(reader.wait(60), 0)
        self.check_by_hand("piped.vma", state=False)

    def create(self, target, *options, **more):
        """All that there is, as an archive with digests."""
        disks = [w for i, name in DISKS.items() for w in ("-d", f"{name}={i}.raw")]
        configs = [w for name, _ in CONFIGS for w in ("-c", name)]
        platter("archive", "create", "-q", "-f", "raw", "--reproducible", "--embed-digest",
                "--vmstate", "state.bin", *disks, *configs, *options, target, **more)

    def test_archive_create(self):
        """To a file, compressed as it is named, and to a pipe: the same bytes; and the digests in
        them are those of the disks."""
        self.write_configs()
        self.create("x.vma")
        disks, configs, _, _ = vma_reader.read("x.vma")
        self.assertEqual([name for name, _ in configs], [n for n, _ in CONFIGS] + ["platter.digest"])
        for disk in json.loads(configs[-1][1])["disks"]:
            with open("one.raw", "wb") as f:
                f.write(disks[disk["name"]])
            said = platter("digest", "-f", "raw", "one.raw").stdout.split()[0]
            self.assertEqual(disk["digest"], said.split(":")[-1], disk["name"])
        self.check_archive("x.vma", digests=True)
        for suffix, unpack in (("zst", "zstd -d -q -c"), ("gz", "zcat")):
            self.create(f"x.vma.{suffix}", "-m", "3")
            run("sh", "-c", f"{unpack} x.vma.{suffix} | cmp - x.vma")
            self.check_archive(f"x.vma.{suffix}", digests=True)
            self.check_views(f"x.vma.{suffix}")
        with open("piped.vma", "wb") as f, \
                subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=f) as cat:
            with subprocess.Popen(
                    [PLATTER, "archive", "create", "-q", "-f", "raw", "--reproducible", "-",
                     *[w for i, name in DISKS.items() for w in ("-d", f"{name}={i}.raw")]],
                    stdout=cat.stdin) as ours:
                cat.stdin.close()
                self.assertEqual(ours.wait(60), 0)
        disks, configs, _, _ = vma_reader.read("piped.vma")
        self.assertEqual(configs, [])
        for i, name in DISKS.items():
            with open(f"{i}.raw", "rb") as f:
                self.assertEqual(disks[name], f.read())

    def test_damaged_wrappers(self):
        """A bit in the packed file is found by whoever packed it, and by us; what is cut off gives
        what is in front of it."""
        self.write_by_hand("x.vma")
        rng = random.Random(6)
        for suffix in PACKERS:
            name = f"x.vma.{suffix}"
            pack(suffix, "x.vma", name)
            whole = os.path.getsize(name)
            with open(name, "r+b") as f:
                f.seek(rng.randrange(whole // 4, whole - whole // 4))
                byte = f.read(1)[0]
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte ^ 1 << rng.randrange(8)]))
            if subprocess.run(["sh", "-c", f"{PACKERS[suffix][1]} < {name} 2>&1 | cmp -s - x.vma"],
                              check=False).returncode:
                self.assertNotEqual(platter("verify", name, code={1, 2}).returncode, 0)
                platter("extract", "-q", "-o", "out", name, code=range(1, 64))
                self.assertEqual([f for f in os.listdir("out") if not f.startswith("qemu-server")]
                                 if os.path.exists("out") else [], [], suffix)
            run("rm", "-rf", "out", name)

    def test_cut_wrappers(self):
        """Salvaged as far as the packed file goes."""
        self.write_by_hand("x.vma")
        for suffix in PACKERS:
            name = f"x.vma.{suffix}"
            pack(suffix, "x.vma", name)
            os.truncate(name, os.path.getsize(name) * 2 // 3)
            self.assertEqual(platter("verify", name, code={2}).returncode, 2)
            done = platter("extract", "-q", "--salvage", "--output=json", "-o", "out", name,
                           code=range(0, 64))
            told = json.loads(done.stdout)
            self.assertTrue(told, suffix)
            self.check_salvaged("out", suffix)
            run("rm", "-r", "out", name)

    def check_salvaged(self, folder, why):
        """Each cluster is what it was, or zeros; and at least a third of what had data is there."""
        same = lost = 0
        for i, name in DISKS.items():
            with open(f"{i}.raw", "rb") as f, open(f"{folder}/{name}.raw", "rb") as g:
                while data := f.read(CLUSTER):
                    got = g.read(CLUSTER)
                    self.assertTrue(got == data or not any(got), f"{why}: {name}")
                    same += got == data and any(data)
                    lost += got != data
        self.assertGreater(same, (same + lost) // 3, why)
        self.assertGreater(lost, 0, why)


if __name__ == "__main__":
    main()
