# SPDX-License-Identifier: MIT
"""QCOW version 1 both ways: what each makes the other reads, and both write in turn. The peer cannot
check, measure, resize or rebase it; and it loses data where it writes a part of a large cluster."""
import json
import os
import struct

from peers import KIB, MIB, POKE, Case, main, make_content, platter, qemu_img, qemu_io, run, sha256

SIZE = 6 * MIB
KEY = ["--object", "secret,id=s,file=key"]


def over(image, base="base.raw", fmt="raw"):
    """An overlay as the peer opens it, which guesses the format of what is below otherwise."""
    return (f"driver=qcow,file.filename={image},backing.driver={fmt},"
            f"backing.file.filename={base}")


def sealed(image):
    return f"driver=qcow,file.filename={image},encrypt.format=aes,encrypt.key-secret=s"


def reshaped(image, cluster_bits, l2_bits):
    """An empty image gets other tables, for which no program has an option."""
    with open(image, "r+b") as f:
        size, = struct.unpack(">Q", f.read(48)[24:32])
        f.seek(32)
        f.write(bytes([cluster_bits, l2_bits]))
        f.truncate(4096 + 8 * (size >> cluster_bits + l2_bits))


class Qcow(Case):
    def setUp(self):
        super().setUp()
        make_content("a.raw", SIZE, 3)
        with open("key", "wb") as f:
            f.write(b"hello-0123456789-longpass")

    def peer_sees(self, opts, raw, *more):
        qemu_img("compare", *more, "--image-opts", opts, f"driver=raw,file.filename={raw}")

    def we_see(self, image, raw, *more):
        platter("compare", *more, "-f", "qcow", "-F", "raw", image, raw)

    # ---- they make, we read ----

    def test_peer_makes(self):
        qemu_img("convert", "-f", "raw", "-O", "qcow", "a.raw", "plain.qcow")
        self.check_read("plain.qcow", "qcow", "a.raw")
        # It packs all of it, and then says that it failed.
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow", "a.raw", "packed.qcow", code={0, 1})
        self.check_read("packed.qcow", "qcow", "a.raw")
        platter("check", "--data", "packed.qcow")
        qemu_img("convert", *KEY, "-f", "raw", "-O", "qcow", "-o",
                 "encrypt.format=aes,encrypt.key-secret=s", "a.raw", "sealed.qcow")
        self.we_see("sealed.qcow", "a.raw", "--key-file", "key")
        self.check_info("sealed.qcow", "qcow")

    def test_peer_makes_overlays(self):
        make_content("base.raw", SIZE - 1500 * 512, 4)
        qemu_img("create", "-q", "-f", "qcow", "-b", "base.raw", "-F", "raw", "top.qcow", SIZE)
        run("qemu-io", "--image-opts", over("top.qcow"), "-c", "write -P 7 3000 70000",
            "-c", "write -P 8 5M 600k")
        qemu_img("convert", "--image-opts", over("top.qcow"), "-O", "raw", "right.raw")
        self.we_see("top.qcow", "right.raw", "--backing-format", "raw")
        self.assertIn("--backing-format",
                      platter("digest", "top.qcow", code=1).stderr)
        qemu_img("create", "-q", "-f", "qcow", "-b", "top.qcow", "-F", "qcow", "third.qcow", SIZE)
        self.we_see("third.qcow", "right.raw", "--backing-format", "qcow,raw")
        ours = json.loads(platter("map", "--output=json", "--backing-format", "raw",
                                  "top.qcow").stdout)
        theirs = json.loads(qemu_img("map", "--output=json", "--image-opts",
                                     over("top.qcow")).stdout)
        stored = [e for e in theirs if e["depth"] == 0 and e["data"]]
        self.assertTrue(stored)
        for entry in stored:
            self.assertIn(entry, ours)

    # ---- we make, they read ----

    def test_new_images_are_the_same(self):
        make_content("base.raw", SIZE, 4)
        below = ["-b", "base.raw", "-F", "raw"]
        aes = [*KEY, "-o", "encrypt.format=aes,encrypt.key-secret=s"]
        for options, size in (([], ["10M"]), ([], ["700"]), (below, []), (aes, ["5M"]),
                              ([*KEY, "-o", "encryption=on,encrypt.key-secret=s"], ["5M"]),
                              (below + aes, ["3G"])):
            mine = platter("create", "-f", "qcow", *options, "same.qcow", *size)
            with open("same.qcow", "rb") as f:
                image = f.read()
            theirs = qemu_img("create", "-f", "qcow", *options, "same.qcow", *size)
            with open("same.qcow", "rb") as f:
                self.assertEqual(image, f.read(), (options, size))
            self.assertEqual(mine.stdout, theirs.stdout)

    def test_we_make(self):
        for flags in ((), ("-c",)):
            platter("convert", *flags, "-f", "raw", "-O", "qcow", "a.raw", "ours.qcow")
            self.check_read("ours.qcow", "qcow", "a.raw")
            self.assertNotIn("leak", platter("check", "--data", "ours.qcow").stderr)
            told = json.loads(platter("measure", "--output=json", "-f", "raw", "-O", "qcow",
                                      "a.raw").stdout)
            self.assertLessEqual(os.path.getsize("ours.qcow"), told["required"])
        platter("convert", "--new-key-file", "key", "-f", "raw", "-O", "qcow", "-o",
                "encrypt.format=aes", "a.raw", "sealed.qcow")
        self.peer_sees(sealed("sealed.qcow"), "a.raw", *KEY)
        platter("convert", "-c", "--new-key-file", "key", "-f", "raw", "-O", "qcow", "-o",
                "encrypt.format=aes", "a.raw", "never.qcow", code=1)

    def test_we_make_overlays(self):
        make_content("base.raw", SIZE - 1500 * 512, 4)
        for flags in ((), ("-c",)):
            platter("convert", *flags, "-f", "raw", "-O", "qcow", "-B", "base.raw", "-F", "raw",
                    "a.raw", "top.qcow")
            self.peer_sees(over("top.qcow"), "a.raw")
            self.we_see("top.qcow", "a.raw", "--backing-format", "raw")

    # ---- both write ----

    def test_in_turn(self):
        platter("convert", "-c", "-f", "raw", "-O", "qcow", "a.raw", "turn.qcow")
        for turn in range(3):
            self.poke("turn.qcow", "qcow", "a.raw", 20 + turn)
            for image, fmt in (("turn.qcow", "qcow"), ("a.raw", "raw")):
                qemu_io(image, fmt, f"write -P {turn + 1} {turn * 300 + 7}k 90000",
                        f"write -z {turn + 2}M 70k")
            self.check_read("turn.qcow", "qcow", "a.raw")
            self.assertNotIn("error", platter("check", "--data", "turn.qcow", code={0, 3}).stderr)
        platter("check", "-r", "leaks", "turn.qcow")
        platter("check", "turn.qcow")
        self.check_read("turn.qcow", "qcow", "a.raw")

    def test_in_turn_encrypted(self):
        platter("create", "-q", "-f", "qcow", "-o", "encrypt.format=aes", "--new-key-file", "key",
                "turn.qcow", SIZE)
        platter("convert", "-n", "--key-file", "key", "-f", "raw", "-O", "qcow", "a.raw",
                "turn.qcow")
        run("qemu-io", *KEY, "--image-opts", sealed("turn.qcow"), "-c", "write -P 7 3000 70000",
            "-c", "write -z 1M 100k")
        qemu_io("a.raw", "raw", "write -P 7 3000 70000", "write -z 1M 100k")
        self.we_see("turn.qcow", "a.raw", "--key-file", "key")

    def test_parts_of_large_clusters(self):
        """Over a backing file the peer makes zeros of the rest of the cluster. We copy it."""
        make_content("base.raw", SIZE, 4)
        lost = 0
        for bits, l2_bits in ((9, 12), (12, 9), (16, 6)):
            for name in ("ours.qcow", "theirs.qcow"):
                platter("create", "-q", "-f", "qcow", "-b", "base.raw", "-F", "raw", name)
                reshaped(name, bits, l2_bits)
            run("cp", "base.raw", "right.raw")
            qemu_io("right.raw", "raw", "write -P 7 70000 100", "write -P 9 3M 1k")
            run("qemu-io", "--image-opts", over("theirs.qcow"), "-c", "write -P 7 70000 100",
                "-c", "write -P 9 3M 1k")
            theirs = platter("compare", "--backing-format", "raw", "-f", "qcow", "-F", "raw",
                             "theirs.qcow", "right.raw", code={0, 1})
            lost += theirs.returncode
            with open("pattern", "wb") as f:
                f.write(b"\7" * 100 + b"\11" * KIB)
            run(POKE, "ours.qcow", "qcow,raw", "pattern",
                input=f"write 70000 100 0\nwrite {3 * MIB} 1024 100\n")
            self.we_see("ours.qcow", "right.raw", "--backing-format", "raw")
            self.peer_sees(over("ours.qcow"), "right.raw")
        self.assertGreater(lost, 0, "the peer has learned it: the manual says that it has not")

    # ---- what only we do ----

    def test_resized(self):
        platter("convert", "-f", "raw", "-O", "qcow", "a.raw", "size.qcow")
        for size in (200 * MIB, 90 * MIB, 3 * MIB + 1024, 40 * MIB):
            platter("resize", "-q", "--shrink", "-f", "qcow", "size.qcow", size)
            os.truncate("a.raw", size)
            self.check_read("size.qcow", "qcow", "a.raw")
            self.assertNotIn("leak", platter("check", "size.qcow").stderr)

    def test_resized_overlay(self):
        """What the backing file has behind the old end does not show."""
        make_content("base.raw", SIZE, 4)
        platter("create", "-q", "-f", "qcow", "-b", "base.raw", "-F", "raw", "top.qcow", MIB + 512)
        platter("resize", "-q", "--backing-format", "raw", "top.qcow", SIZE)
        with open("base.raw", "rb") as f, open("right.raw", "wb") as g:
            g.write(f.read(MIB + 512))
            g.truncate(SIZE)
        self.peer_sees(over("top.qcow"), "right.raw")

    def test_rebase_and_commit(self):
        make_content("base.raw", SIZE, 4)
        make_content("other.raw", SIZE, 5)
        platter("convert", "-f", "raw", "-O", "qcow", "-B", "base.raw", "-F", "raw", "a.raw",
                "top.qcow")
        for name in ("other.raw", "./././" + "/" * 600 + "other.raw", "base.raw"):
            platter("rebase", "--backing-format", "raw", "-b", name, "-F", "raw", "top.qcow")
            told = json.loads(qemu_img("info", "--output=json", "top.qcow").stdout)
            self.assertEqual(told["backing-filename"], name)
            self.peer_sees(over("top.qcow", name), "a.raw")
        platter("rebase", "-u", "-b", "other.raw", "-F", "raw", "top.qcow")
        platter("rebase", "-u", "-b", "base.raw", "-F", "raw", "top.qcow")
        platter("commit", "-q", "--backing-format", "raw", "top.qcow")
        self.assertEqual(sha256("base.raw"), sha256("a.raw"))
        self.peer_sees(over("top.qcow"), "a.raw")
        self.assertLess(os.path.getsize("top.qcow"), 64 * KIB)
        platter("rebase", "--backing-format", "raw", "-b", "", "top.qcow")
        self.check_read("top.qcow", "qcow", "a.raw")


if __name__ == "__main__":
    main()
