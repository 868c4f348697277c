# SPDX-License-Identifier: MIT
"""Encrypted images both ways: every cipher, mode and hash that both have, key slots that one adds and
the other opens, and volumes that cryptsetup makes.
"""
import json
import os
import re

from peers import MIB, Case, add_case, main, make_content, platter, qemu_img, run

SIZE = 2 * MIB + 1536
# Options of LUKS that together say all that both know, and for which formats.
SETS = {
    "defaults": ({}, ["qcow2", "luks"]),
    "aes-128-xts-sha1": ({"cipher-alg": "aes-128", "hash-alg": "sha1"}, ["qcow2"]),
    "aes-256-cbc-sha512": ({"cipher-mode": "cbc", "hash-alg": "sha512"}, ["luks"]),
    "essiv": ({"cipher-mode": "cbc", "ivgen-alg": "essiv", "ivgen-hash-alg": "sha256",
               "cipher-alg": "aes-128"}, ["qcow2", "luks"]),
    "serpent-256-xts-plain": ({"cipher-alg": "serpent-256", "ivgen-alg": "plain"}, ["luks"]),
    "twofish-128-cbc-ripemd160": ({"cipher-alg": "twofish-128", "cipher-mode": "cbc",
                                   "hash-alg": "ripemd160"}, ["luks"]),
    "twofish-256-xts-sha384": ({"cipher-alg": "twofish-256", "hash-alg": "sha384"}, ["luks"]),
    "cast5-cbc-sha224": ({"cipher-alg": "cast5-128", "cipher-mode": "cbc", "hash-alg": "sha224"},
                         ["luks"]),
}


def hurried(*argv):
    """The peer makes keys, with the fewest iterations there may be (hurry.c)."""
    return qemu_img(*argv, env={**os.environ, "LD_PRELOAD": os.environ["HURRY"]})


def prefix(fmt):
    return "encrypt." if fmt == "qcow2" else ""


def options_text(fmt, options):
    own = {"iter-time": 1, **options}
    text = ",".join(f"{prefix(fmt)}{key}={value}" for key, value in own.items())
    return ("encrypt.format=luks," if fmt == "qcow2" else "") + text


def secret(name, path):
    return ["--object", f"secret,id={name},file={path}"]


def opts(fmt, image, name):
    return f"driver={fmt},file.filename={image},{prefix(fmt)}key-secret={name}"


class Base(Case):
    def setUp(self):
        super().setUp()
        for name in "ab":
            with open(f"{name}.key", "wb") as f:
                f.write(f"the k\u00e9y {name}\n".encode())  # the peer wants UTF-8
        make_content("a.raw", SIZE, 7)

    def same_for_peer(self, fmt, image, key="a.key"):
        qemu_img("compare", *secret("s", key), "--image-opts", opts(fmt, image, "s"),
                 "driver=raw,file.filename=a.raw")
        if fmt == "qcow2":
            qemu_img("check", *secret("s", key), "--image-opts", opts(fmt, image, "s"))

    def same_for_us(self, image, *key):
        platter("compare", *key, "-F", "raw", image, "a.raw")


def both_ways(self, fmt, options):
    """Made by each, read and written into by the other."""
    text = options_text(fmt, options)
    hurried("convert", *secret("s", "a.key"), "-f", "raw", "-O", fmt, "-o",
            f"{text},{prefix(fmt)}key-secret=s", "a.raw", "theirs")
    self.same_for_us("theirs", "--key-file", "a.key")
    platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", fmt, "-o", text, "a.raw",
            "ours")
    self.same_for_peer(fmt, "ours")
    for image in ("ours", "theirs"):
        ours = json.loads(platter("info", "--output=json", image).stdout)
        theirs = json.loads(qemu_img("info", "--output=json", image).stdout)
        self.assertEqual(ours, theirs)
    make_content("a.raw", SIZE, 8)
    for image in ("ours", "theirs"):
        platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", fmt, "a.raw", image)
        self.same_for_peer(fmt, image)
    run("qemu-io", *secret("s", "a.key"), "--image-opts", opts(fmt, "ours", "s"),
        "-c", "write -P 7 3000 70000", "-c", "write -z 1M 100k")
    run("qemu-io", "-f", "raw", "-c", "write -P 7 3000 70000", "-c", "write -z 1M 100k", "a.raw")
    self.same_for_us("ours", "--key-file", "a.key")


def key_slots(self, fmt):
    """A slot that one fills is opened by the other, and gone for both when one clears it."""
    platter("create", "-q", "-f", fmt, "-o", options_text(fmt, {}), "--new-key-file", "a.key",
            "image", SIZE)
    platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", fmt, "a.raw", "image")
    change = prefix(fmt)
    hurried("amend", *secret("s", "a.key"), *secret("n", "b.key"), "--image-opts",
            opts(fmt, "image", "s"), "-o",
            f"{change}state=active,{change}new-secret=n,{change}iter-time=1,{change}keyslot=6")
    self.same_for_us("image", "--key-file", "b.key")
    platter("key", "remove", "--key-file", "b.key", "--slot", "0", "image")
    run("qemu-io", *secret("s", "a.key"), "--image-opts", opts(fmt, "image", "s"), "-c", "read 0 512",
        code=1)
    self.same_for_peer(fmt, "image", "b.key")
    platter("key", "change", "--iter-time", "1", "--key-file", "b.key", "--new-key-file", "a.key",
            "image")
    self.same_for_peer(fmt, "image", "a.key")
    platter("key", "add", "--iter-time", "1", "--key-file", "a.key", "--new-key-file", "b.key",
            "--slot", "6", "image")
    qemu_img("amend", *secret("s", "a.key"), *secret("o", "a.key"), "--image-opts",
             opts(fmt, "image", "s"), "-o", f"{change}state=inactive,{change}old-secret=o")
    platter("digest", "--key-file", "a.key", "image", code=1)
    self.same_for_us("image", "--key-file", "b.key")


class Ciphers(Base):
    """One test for each set, added below."""


class Shapes(Base):
    def test_clusters(self):
        for options in ("cluster_size=512", "cluster_size=2M", "extended_l2=on", "compat=0.10",
                        "preallocation=metadata", "refcount_bits=1"):
            platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                    f"{options_text('qcow2', {})},{options}", "a.raw", "ours")
            self.same_for_peer("qcow2", "ours")

    def test_data_file_raw_or_not(self):
        """Data of its own file is encrypted by where it stands there; one that the peer calls raw
        holds no zeros where the disk has some."""
        for raw in ("off", "on"):
            hurried("create", "-q", *secret("s", "a.key"), "-f", "qcow2", "-o",
                    options_text("qcow2", {}) + ",encrypt.key-secret=s,data_file=theirs.bin,"
                    f"data_file_raw={raw}", "theirs", SIZE)
            for seed in (7, 8):
                make_content("a.raw", SIZE, seed)
                platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", "qcow2", "a.raw",
                        "theirs")
                self.same_for_peer("qcow2", "theirs")
                self.same_for_us("theirs", "--key-file", "a.key")
        for options in ("cluster_size=4k", "extended_l2=on,cluster_size=16k",
                        "preallocation=metadata", "extended_l2=on,preallocation=full"):
            platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                    options_text("qcow2", {}) + f",data_file=ours.bin,{options}", "a.raw", "ours")
            self.same_for_peer("qcow2", "ours")
            run("qemu-io", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
                "-c", "write -P 7 3000 70000", "-c", "write -z 1M 100k")
            run("qemu-io", "-f", "raw", "-c", "write -P 7 3000 70000", "-c", "write -z 1M 100k",
                "a.raw")
            self.same_for_us("ours", "--key-file", "a.key")

    def test_old_aes(self):
        """Made by the peer, read by us with a warning, and not written to."""
        qemu_img("create", "-q", *secret("s", "a.key"), "-f", "qcow2", "-o",
                 "encrypt.format=aes,encrypt.key-secret=s", "old", SIZE)
        run("qemu-io", *secret("s", "a.key"), "--image-opts", opts("qcow2", "old", "s"),
            "-c", "write -P 7 3000 70000", "-c", "write -P 9 1M 600")
        qemu_img("convert", *secret("s", "a.key"), "--image-opts", opts("qcow2", "old", "s"),
                 "-O", "raw", "a.raw")
        done = platter("compare", "--key-file", "a.key", "-F", "raw", "old", "a.raw")
        self.assertIn("AES of old", done.stderr)
        platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", "qcow2", "a.raw", "old",
                code=1)
        platter("convert", "--key-file", "a.key", "-O", "qcow2", "-o",
                options_text("qcow2", {}), "old", "new")
        self.same_for_peer("qcow2", "new")

    def test_chain(self):
        """A plain image over an encrypted one, and the data of an encrypted one in a plain one."""
        platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                options_text("qcow2", {}), "a.raw", "base")
        platter("create", "-q", "-f", "qcow2", "-o", options_text("qcow2", {}), "--new-key-file",
                "b.key", "-b", "base", "-F", "qcow2", "over")
        make_content("b.raw", SIZE, 9)
        both = ["--key-file", "a.key", "--key-file", "b.key"]
        self.same_for_us("over", *both)
        platter("convert", "-n", *both, "-f", "raw", "-O", "qcow2", "b.raw", "over")
        platter("commit", *both, "over")
        platter("compare", *both, "-F", "raw", "over", "b.raw")
        platter("compare", *both, "-F", "raw", "base", "b.raw")
        qemu_img("check", *secret("s", "b.key"), "--image-opts",
                 opts("qcow2", "over", "s") + ",backing.encrypt.key-secret=t", *secret("t", "a.key"))
        platter("rebase", *both, "-b", "", "over")
        platter("compare", "--key-file", "b.key", "-F", "raw", "over", "b.raw")

    def test_resize(self):
        platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                options_text("qcow2", {}), "a.raw", "ours")
        platter("resize", "-q", "--key-file", "a.key", "ours", 5 * MIB)
        with open("a.raw", "r+b") as f:
            f.truncate(5 * MIB)
        self.same_for_peer("qcow2", "ours")
        platter("resize", "-q", "--shrink", "--key-file", "a.key", "ours", MIB + 512)
        with open("a.raw", "r+b") as f:
            f.truncate(MIB + 512)
        self.same_for_peer("qcow2", "ours")

    def test_snapshot(self):
        platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                options_text("qcow2", {}), "a.raw", "ours")
        platter("snapshot", "-c", "before", "--key-file", "a.key", "ours")
        make_content("b.raw", SIZE, 9)
        platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", "qcow2", "b.raw", "ours")
        platter("compare", "--key-file", "a.key", "-F", "raw", "ours@before", "a.raw")
        platter("snapshot", "-a", "before", "--key-file", "a.key", "ours")
        self.same_for_peer("qcow2", "ours")

    def test_snapshots_convert(self):
        """All snapshots of an encrypted image into one with another key, and into a plain one."""
        self.make_encrypted("ours", "a.raw")
        platter("snapshot", "-c", "one", "--key-file", "a.key", "ours")
        make_content("b.raw", SIZE, 9)
        platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", "qcow2", "b.raw", "ours")
        platter("snapshot", "-c", "two", "--key-file", "a.key", "ours")
        run("qemu-io", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
            "-c", "write -P 7 3000 70000")
        qemu_img("convert", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
                 "-O", "raw", "now.raw")
        platter("convert", "--snapshots", "--key-file", "a.key", "--new-key-file", "b.key", "-O",
                "qcow2", "-o", options_text("qcow2", {}), "ours", "sealed")
        platter("convert", "--snapshots", "--key-file", "a.key", "-O", "qcow2", "ours", "plain")
        platter("convert", "--snapshots", "--new-key-file", "b.key", "-O", "qcow2", "-o",
                options_text("qcow2", {}), "plain", "again")
        for name, raw in (("one", "a.raw"), ("two", "b.raw"), ("", "now.raw")):
            view = ["-l", f"snapshot.name={name}"] if name else []
            for image in ("sealed", "again"):
                qemu_img("convert", *view, *secret("s", "b.key"), "--image-opts",
                         opts("qcow2", image, "s"), "-O", "raw", "out.raw")
                qemu_img("compare", "-f", "raw", "-F", "raw", "out.raw", raw)
            qemu_img("convert", *view, "-f", "qcow2", "-O", "raw", "plain", "out.raw")
            qemu_img("compare", "-f", "raw", "-F", "raw", "out.raw", raw)
        qemu_img("check", *secret("s", "b.key"), "--image-opts", opts("qcow2", "sealed", "s"))

    def test_data_file(self):
        """The data of an encrypted image in a file of its own."""
        for options in ("data_file=data", "data_file=data,preallocation=metadata"):
            platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                    f"{options_text('qcow2', {})},{options}", "a.raw", "ours")
            with open("data", "rb") as f, open("a.raw", "rb") as g:
                self.assertNotIn(g.read(64), f.read())
            self.same_for_peer("qcow2", "ours")
            run("qemu-io", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
                "-c", "write -P 7 3000 70000", "-c", "discard 1M 128k")
            qemu_img("convert", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
                     "-O", "raw", "b.raw")
            platter("compare", "--key-file", "a.key", "-F", "raw", "ours", "b.raw")

    def test_bitmaps(self):
        """A bitmap records what is written to an encrypted image, for both."""
        self.make_encrypted("ours", "a.raw")
        platter("bitmap", "--add", "-g", "65536", "--key-file", "a.key", "ours", "b0")
        run("qemu-io", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"),
            "-c", "write -P 7 70000 100")
        platter("bench", "-w", "-c", "1", "-s", "512", "-o", "1048576", "--key-file", "a.key", "ours")
        dirty = [(x["start"], x["length"]) for x in json.loads(
            platter("map", "--output=json", "--bitmap", "b0", "--key-file", "a.key", "ours").stdout)
            if x["dirty"]]
        self.assertEqual(dirty, [(65536, 65536), (MIB, 65536)])
        qemu_img("check", *secret("s", "a.key"), "--image-opts", opts("qcow2", "ours", "s"))
        platter("convert", "--bitmaps", "--key-file", "a.key", "--new-key-file", "b.key", "-O",
                "qcow2", "-o", options_text("qcow2", {}), "ours", "copy")
        info = json.loads(qemu_img("info", "--output=json", "copy").stdout)
        self.assertEqual([b["name"] for b in info["format-specific"]["data"]["bitmaps"]], ["b0"])

    def test_more_ciphers(self):
        """With those above: each cipher, mode, vector and hash that the peer can make volumes with.
        (Of 192 bits it makes only those that have twice as many in mode xts.)"""
        make_content("a.raw", 65536, 7)
        for text in ("cipher-alg=aes-128,cipher-mode=ctr,hash-alg=md5", "cipher-mode=ecb",
                     "cipher-alg=aes-192,hash-alg=sha224", "cipher-alg=twofish-192,hash-alg=sha1",
                     "cipher-alg=serpent-256,cipher-mode=ctr,ivgen-alg=essiv,ivgen-hash-alg=sha256",
                     "cipher-alg=serpent-128,cipher-mode=cbc,ivgen-alg=plain,hash-alg=ripemd160",
                     "cipher-alg=serpent-192", "cipher-alg=twofish-256,cipher-mode=ecb",
                     "cipher-alg=cast5-128,cipher-mode=ctr,hash-alg=sha384",
                     "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5"):
            with self.subTest(text):
                platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "luks", "-o",
                        f"{text},iter-time=1", "a.raw", "ours")
                self.same_for_peer("luks", "ours")
                hurried("convert", *secret("s", "a.key"), "-f", "raw", "-O", "luks", "-o",
                        f"{text},iter-time=1,key-secret=s", "a.raw", "theirs")
                self.same_for_us("theirs", "--key-file", "a.key")
                if ",hash-alg=md5" not in text:  # which cryptsetup does not have
                    self.assertEqual(self.dumped("ours"), self.dumped("theirs"))

    def dumped(self, volume):
        """What cryptsetup reads in a header, without what is different each time."""
        lines = run("cryptsetup", "luksDump", f"./{volume}").stdout.splitlines()
        return [line for line in lines
                if re.match(r"\s*(Version|Cipher|Hash|Payload|MK bits|Key|AF)", line)]

    def make_encrypted(self, image, raw):
        platter("convert", "--new-key-file", "a.key", "-f", "raw", "-O", "qcow2", "-o",
                options_text("qcow2", {}), raw, image)

    def test_cryptsetup(self):
        """A volume as other programs make it, and ours as they see it."""
        for cipher, bits in (("aes-xts-plain64", 512), ("aes-cbc-essiv:sha256", 256)):
            with open("volume", "wb") as f:
                f.truncate(4 * MIB)
            run("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--cipher", cipher,
                "--key-size", bits, "--pbkdf-force-iterations", "1000", "--key-file", "a.key",
                "./volume")
            self.assertEqual(json.loads(platter("info", "--output=json", "volume").stdout)
                             ["format"], "luks")
            platter("key", "add", "--iter-time", "1", "--key-file", "a.key", "--new-key-file",
                    "b.key", "volume")
            run("cryptsetup", "open", "--test-passphrase", "--key-file", "b.key", "./volume")
            size = json.loads(platter("info", "--output=json", "volume").stdout)["virtual-size"]
            make_content("a.raw", size, 3)
            platter("convert", "-n", "--key-file", "a.key", "-f", "raw", "-O", "luks", "a.raw",
                    "volume")
            self.same_for_peer("luks", "volume", "b.key")
        platter("create", "-q", "-f", "luks", "-o", "iter-time=1", "--new-key-file", "a.key",
                "new", MIB)
        run("cryptsetup", "open", "--test-passphrase", "--key-file", "a.key", "./new")
        run("cryptsetup", "open", "--test-passphrase", "--key-file", "b.key", "./new", code=2)

    def test_cryptsetup_slots(self):
        """Slots that it fills, empties and changes, of a volume that we made, and the other way."""
        platter("create", "-q", "-f", "luks", "-o", "iter-time=1", "--new-key-file", "a.key",
                "volume", MIB)
        quick = ["-q", "--pbkdf-force-iterations", "1000"]
        with open("c.key", "wb") as f:
            f.write(bytes(range(256)))
        run("cryptsetup", "luksAddKey", *quick, "--key-file", "a.key", "./volume", "c.key")
        platter("bench", "-q", "-c", "1", "--key-file", "c.key", "volume")
        run("cryptsetup", "luksChangeKey", *quick, "--key-file", "c.key", "./volume", "b.key")
        platter("bench", "-q", "-c", "1", "--key-file", "c.key", "volume", code=1)
        platter("bench", "-q", "-c", "1", "--key-file", "b.key", "volume")
        run("cryptsetup", "luksKillSlot", "-q", "--key-file", "b.key", "./volume", "0")
        platter("bench", "-q", "-c", "1", "--key-file", "a.key", "volume", code=1)
        platter("key", "change", "--iter-time", "1", "--key-file", "b.key", "--new-key-file",
                "a.key", "volume")
        run("cryptsetup", "open", "--test-passphrase", "--key-file", "a.key", "./volume")
        run("cryptsetup", "open", "--test-passphrase", "--key-file", "b.key", "./volume", code=2)
        done = platter("check", "volume")
        self.assertEqual((done.stdout.splitlines()[0], done.stderr),
                         ("No errors were found on the image.", ""))


for set_name, (set_options, set_formats) in SETS.items():
    for set_format in set_formats:
        add_case(Ciphers, f"{set_format}-{set_name}", both_ways, set_format, set_options)
for set_format in ("qcow2", "luks"):
    add_case(Ciphers, f"{set_format}-key-slots", key_slots, set_format)

if __name__ == "__main__":
    main()
