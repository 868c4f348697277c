# SPDX-License-Identifier: MIT
"""One qcow2 over another, in the hands of both programs by turns: written, resized, rebased, amended,
committed, in a seeded order. After each step the peer finds no fault, and both read the same disk,
which is that of a flat file that was treated alike."""
import random

from peers import KIB, MIB, Case, add_case, main, platter, qemu_img, qemu_io

STEPS = 24
SHAPES = {
    "64k": "cluster_size=64k",
    "512": "cluster_size=512,refcount_bits=64",
    "old": "cluster_size=4k,compat=0.10",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "lazy": "cluster_size=4k,lazy_refcounts=on,refcount_bits=4",
}


class Reshape(Case):
    """The steps; `self.flat` holds what a guest must see."""

    def begin(self, options, seed):
        self.rng = random.Random(seed)
        self.options = options
        self.flat = bytearray(self.rng.randbytes(MIB // 2) + bytes(MIB))
        for name in ("base.raw", "other.raw"):
            with open(name, "wb") as file:
                file.write(self.flat if name == "base.raw" else self.rng.randbytes(MIB // 3))
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", "base.raw", "-F", "raw",
                 "a.qcow2")
        self.below = "base.raw"

    def either(self, *argv):
        self.rng.choice((platter, qemu_img))(*argv)

    def step_write(self):
        off = self.rng.randrange(len(self.flat) // 512) * 512
        length = min(self.rng.randrange(1, 400) * 512, len(self.flat) - off)
        byte = self.rng.randrange(1, 255)
        kind = self.rng.choice(("write", "zero"))
        if kind == "write":
            qemu_io("a.qcow2", "qcow2", f"write -P {byte} {off} {length}")
            self.flat[off:off + length] = bytes([byte]) * length
        else:
            qemu_io("a.qcow2", "qcow2", f"write -z {off} {length}")
            self.flat[off:off + length] = bytes(length)

    def step_grow(self):
        size = len(self.flat) + self.rng.randrange(1, 2000) * 512
        # The peer shows what is below, or was behind the end: qcow2.md section 10 and 25.
        platter("resize", "-q", "a.qcow2", str(size))
        self.flat += bytes(size - len(self.flat))

    def step_shrink(self):
        size = max(len(self.flat) - self.rng.randrange(1, 1000) * 512, 256 * KIB)
        self.either("resize", "-q", "--shrink", "-f", "qcow2", "a.qcow2", str(size))
        del self.flat[size:]

    def step_rebase(self):
        self.below = self.rng.choice(("base.raw", "other.raw", ""))
        extra = ["-F", "raw"] if self.below else []
        self.either("rebase", "-b", self.below, *extra, "-f", "qcow2", "a.qcow2")

    def step_amend(self):
        choices = ["refcount_bits=16", "compat=1.1"]
        if "extended" not in self.options:
            choices.append("compat=0.10,refcount_bits=16")
        choices += [f"compat=1.1,refcount_bits={bits}" for bits in (1, 8, 64)]
        self.either("amend", "-q", "-f", "qcow2", "-o", self.rng.choice(choices), "a.qcow2")

    def step_commit(self):
        if not self.below:
            return
        self.either("commit", "-q", "-f", "qcow2", "a.qcow2")
        with open(self.below, "rb") as file:
            self.assertEqual(file.read(len(self.flat)), self.flat, "committed")

    def judge(self):
        with open("flat.raw", "wb") as file:
            file.write(self.flat)
        qemu_img("check", "-q", "a.qcow2")
        qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", "a.qcow2", "flat.raw")
        platter("compare", "-q", "-f", "qcow2", "-F", "raw", "a.qcow2", "flat.raw")
        self.check_digest("a.qcow2", "qcow2", "flat.raw")


def turns(self, options, seed):
    self.begin(options, seed)
    steps = ["write"] * 3 + ["grow", "shrink", "rebase", "amend", "commit"]
    for i in range(STEPS):
        step = self.rng.choice(steps)
        with self.subTest(i=i, step=step):
            getattr(self, f"step_{step}")()
            self.judge()


for number, (shape, text) in enumerate(SHAPES.items()):
    add_case(Reshape, shape, turns, text, number)

if __name__ == "__main__":
    main()
