# SPDX-License-Identifier: MIT
"""Images in a real Ceph: what we write there is what Ceph has, and what it has is what we read."""
import json
import os
import signal
import subprocess
import time

from peers import MIB, GIB, Case, add_case, main, make_content, platter, qemu_img, run, sha256
from pool import POOL, data, differences, export, info, names, rbd, remove, start, until

SIZE = 9 * MIB + 1536  # no whole objects


class Images(Case):

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    def refused(self, *argv, words=(), **more):
        done = platter(*argv, code=1, **more)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done

    def check(self, name, raw, *, qemu=True):
        """All who read the image see the bytes of the file."""
        place = f"rbd:{POOL}/{name}"
        self.assertEqual(info(name)["size"], os.path.getsize(raw))
        self.assertEqual(sha256(export(name, "exported")), sha256(raw))
        self.check_digest(place, "raw", raw)
        platter("compare", "-f", "raw", "-F", "raw", place, raw)
        self.assertEqual(data(place), differences(name))
        if qemu:
            qemu_img("compare", "-f", "raw", "-F", "raw", place, raw)

    # ---- bytes -----------------------------------------------------------------------------------

    def test_written(self):
        make_content("disk.raw", SIZE, 1)
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/new")
        self.assertEqual(names(), ["new"])
        self.check("new", "disk.raw")
        rbd("export-diff", f"{POOL}/new", "delta")
        rbd("create", "--size=1", f"{POOL}/other")
        rbd("import-diff", "delta", f"{POOL}/other")
        self.assertEqual(sha256(export("other", "back")), sha256("disk.raw"))

    def test_half_a_sector(self):
        """Which qemu-img ends at with an assertion."""
        make_content("disk.raw", 5 * MIB + 1000, 21)
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/odd")
        self.check("odd", "disk.raw", qemu=False)

    def test_read(self):
        make_content("disk.raw", SIZE, 2)
        rbd("import", "disk.raw", f"{POOL}/there")
        self.check("there", "disk.raw")
        platter("convert", "-f", "raw", "-O", "qcow2", f"rbd:{POOL}/there", "back.qcow2")
        platter("compare", "-F", "raw", "back.qcow2", "disk.raw")
        told = json.loads(platter("info", "--output=json", "-f", "raw", f"rbd:{POOL}/there").stdout)
        self.assertEqual((told["virtual-size"], told["filename"], "snapshots" in told),
                         (SIZE, f"rbd:{POOL}/there", False))

    def test_vast(self):
        """Mostly holes, with data around where what is asked about at once ends."""
        with open("disk.raw", "wb") as f:
            f.truncate(5 * GIB)
            for at in (GIB - 4096, 2 * GIB, 3 * GIB - 3 * MIB, 5 * GIB - 70000):
                f.seek(at)
                f.write(os.urandom(8192))
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/vast")
        self.assertEqual(data(f"rbd:{POOL}/vast"), differences("vast"))
        self.assertLess(sum(n for _, n in differences("vast")), 20 * MIB)
        platter("compare", "-f", "raw", "-F", "raw", f"rbd:{POOL}/vast", "disk.raw")

    def test_random_writes(self):
        make_content("disk.raw", 6 * MIB, 3)
        for name, fmt in (("flat", "raw"), ("tables", "qcow2")):
            platter("convert", "-f", "raw", "-O", fmt, "disk.raw", f"rbd:{POOL}/{name}")
            run("cp", "disk.raw", "shadow.raw")
            self.poke(f"rbd:{POOL}/{name}", fmt, "shadow.raw", 4)
            qemu_img("compare", "-f", fmt, "-F", "raw", f"rbd:{POOL}/{name}", "shadow.raw")
        qemu_img("check", "-f", "qcow2", f"rbd:{POOL}/tables")
        platter("check", f"rbd:{POOL}/tables")

    def test_resize(self):
        make_content("disk.raw", 5 * MIB, 5)
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/sized")
        platter("resize", "-f", "raw", f"rbd:{POOL}/sized", "13M")
        self.assertEqual(info("sized")["size"], 13 * MIB)
        platter("resize", "-f", "raw", "--shrink", f"rbd:{POOL}/sized", str(3 * MIB))
        platter("resize", "-f", "raw", f"rbd:{POOL}/sized", str(5 * MIB))
        os.truncate("disk.raw", 3 * MIB)
        os.truncate("disk.raw", 5 * MIB)
        self.check("sized", "disk.raw")

    def test_preallocated(self):
        platter("create", "-f", "raw", "-o", "preallocation=falloc", f"rbd:{POOL}/full", "9M")
        self.assertEqual(differences("full"), [(0, 9 * MIB)])

    # ---- formats inside of images ----------------------------------------------------------------

    def test_qcow2(self):
        """It grows as it is written, and ends where it ends."""
        make_content("disk.raw", 30 * MIB, 6)
        place = f"rbd:{POOL}/q"
        platter("convert", "-f", "raw", "-O", "qcow2", "disk.raw", place)
        platter("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2")
        self.assertEqual(info("q")["size"], os.path.getsize("disk.qcow2"))
        qemu_img("check", "-f", "qcow2", place)
        qemu_img("compare", "-f", "qcow2", "-F", "raw", place, "disk.raw")
        platter("compare", "-F", "raw", place, "disk.raw")

    def test_backing(self):
        """A backing file in Ceph, with the image's own connection, only where that is allowed."""
        make_content("base.raw", 3 * MIB, 7)
        rbd("import", "base.raw", f"{POOL}/base")
        conf = os.environ["CEPH_CONF"]
        platter("create", "-f", "qcow2", "-b", f"rbd:{POOL}/base", "-F", "raw", f"rbd:{POOL}/top")
        place = f"rbd:{POOL}/top?conf={conf}"
        self.refused("digest", place, words=["base"])
        lost = dict(os.environ)
        del lost["CEPH_CONF"]
        done = platter("digest", "--algorithm=sha256", f"--allow=rbd:{POOL}/base", place, env=lost)
        self.assertEqual(done.stdout.split()[0], sha256("base.raw"))

    # ---- how images are made ---------------------------------------------------------------------

    def test_options(self):
        make_content("disk.raw", SIZE, 8)
        place = f"rbd:{POOL}/made"
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw",
                f"{place}?object_size=64k&features=layering+exclusive-lock")
        made = info("made")
        self.assertEqual((made["object_size"], made["features"]),
                         (65536, ["layering", "exclusive-lock"]))
        self.check("made", "disk.raw")
        remove("made")
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw",
                f"{place}?object_size=1M&stripe_unit=64k&stripe_count=4")
        made = info("made")
        self.assertEqual((made["stripe_unit"], made["stripe_count"]), (65536, 4))
        self.check("made", "disk.raw")
        remove("made")
        for key, words in (("object_size=100k", ["power of two"]), ("features=wings", ["wings"]),
                           ("data_pool=nowhere", ["new image"])):
            self.refused("convert", "-f", "raw", "-O", "raw", "disk.raw", f"{place}?{key}",
                         words=words)
            self.assertEqual(names(), [])

    def test_there_already(self):
        make_content("disk.raw", SIZE, 9)
        make_content("old.raw", 2 * SIZE, 10)
        place = f"rbd:{POOL}/old"
        rbd("import", "old.raw", f"{POOL}/old")
        self.refused("convert", "-f", "raw", "-O", "raw", "disk.raw", place,
                     words=["exists already", "-n"])
        self.assertEqual(sha256(export("old", "back")), sha256("old.raw"))
        platter("convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", place)
        with open("old.raw", "r+b") as f, open("disk.raw", "rb") as new:
            f.write(new.read())
        self.check("old", "old.raw")
        self.refused("convert", "-n", "-f", "raw", "-O", "raw", "old.raw", f"rbd:{POOL}/none",
                     words=["no such image"])
        rbd("create", "--size=1", f"{POOL}/small")
        self.refused("convert", "-n", "-f", "raw", "-O", "raw", "old.raw", f"rbd:{POOL}/small",
                     words=["less than"])
        self.refused("convert", "-n", "-f", "raw", "-O", "raw", place, place, words=["source"])

    def test_made_meanwhile(self):
        make_content("disk.raw", 30 * MIB, 11)
        job = start("convert", "-r", "10M", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/new")
        until(names, "an image")
        rbd("create", "--size=1", f"{POOL}/new")
        self.assertIn("meanwhile", job.communicate(timeout=60)[1])
        self.assertEqual((job.returncode, names(), info("new")["size"]), (1, ["new"], MIB))

    # ---- names -----------------------------------------------------------------------------------

    def test_namespaces(self):
        make_content("disk.raw", SIZE, 12)
        rbd("namespace", "create", f"{POOL}/space")
        conf = os.environ["CEPH_CONF"]
        lost = dict(os.environ)
        del lost["CEPH_CONF"]
        platter("convert", "-f", "raw", "-O", "raw", "disk.raw",
                f"rbd:{POOL}/space/one:id=admin:conf={conf}", env=lost)
        self.assertEqual((names(), names(f"{POOL}/space")), ([], ["one"]))
        self.check_digest(f"rbd:{POOL}/space/one", "raw", "disk.raw")
        qemu_img("compare", "-f", "raw", "-F", "raw", f"rbd:{POOL}/space/one", "disk.raw")
        remove("one", f"{POOL}/space")
        rbd("namespace", "rm", f"{POOL}/space")

    def test_numbers(self):
        """The keys of a native source-spec."""
        make_content("disk.raw", SIZE, 13)
        rbd("import", "disk.raw", f"{POOL}/one")
        rbd("snap", "create", f"{POOL}/one@then")
        rbd("bench", "--io-type=write", "--io-total=1M", f"{POOL}/one")
        snap = json.loads(rbd("snap", "ls", "--format=json", f"{POOL}/one").stdout)[0]["id"]
        pools = json.loads(run("ceph", "osd", "pool", "ls", "detail", "--format=json").stdout)
        pool = next(p["pool_id"] for p in pools if p["pool_name"] == POOL)
        for spec in ({"pool_id": pool, "image_id": info("one")["id"], "snap_id": snap},
                     {"pool_name": POOL, "image_name": "one", "snap_name": "then",
                      "client_name": "client.admin", "cluster_name": "ceph"}):
            text = json.dumps({"type": "native", **spec})
            done = platter("digest", "--algorithm=sha256", f"json:{text}")
            self.assertEqual(done.stdout.split()[0], sha256("disk.raw"))

    def test_wrong(self):
        rbd("create", "--size=1", f"{POOL}/one")
        place = f"rbd:{POOL}/one"
        for name, words in (
                ("rbd:nowhere/one", ["no such pool"]), (f"rbd:{POOL}/two", ["no such image"]),
                (f"{place}@then", ["no such snapshot"]), (f"rbd:{POOL}/n/one", ["namespace", "n"]),
                ("rbd:one", ["POOL/IMAGE"]), (f"{place}?wings=1", ["wings"]),
                (f"{place}:wings=1", ["wings"]), (f"{place}?id=nobody", ["client.nobody"]),
                (f"{place}?conf=/nowhere", ["/nowhere"]),
                (f"{place}?id=a&client_name=client.b", ["client_name", "id"])):
            self.refused("info", "-f", "raw", name, words=words)
        self.refused("snapshot", "-f", "raw", "-c", "x", f"{place}@then", words=["snapshot"])

    def test_secret_is_not_told(self):
        os.environ["WRONG_KEY"] = "QVFDc2VjcmV0c2VjcmV0c2VjcmV0"
        for key in ("env:WRONG_KEY", os.environ["WRONG_KEY"]):
            done = self.refused("info", "-f", "raw", f"rbd:{POOL}/one?key={key}")
            self.assertNotIn(os.environ["WRONG_KEY"], done.stderr)

    # ---- servers that do not answer --------------------------------------------------------------

    def test_no_monitor(self):
        before = time.monotonic()
        self.refused("info", f"rbd:{POOL}/one?mon_host=127.0.0.1:9&timeout=2",
                     words=["no monitor", "2 seconds"])
        self.assertLess(time.monotonic() - before, 15)

    # ---- somebody else ---------------------------------------------------------------------------

    def test_held(self):
        make_content("disk.raw", SIZE, 15)
        rbd("import", "disk.raw", f"{POOL}/vm")
        place = f"rbd:{POOL}/vm"
        other = subprocess.Popen(["qemu-io", "-f", "raw", place], stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.PIPE)
        try:
            other.stdin.write("write -P 7 0 64k\n")
            other.stdin.flush()
            until(lambda: "watchers" in rbd("status", f"{POOL}/vm", "--format=json").stdout and
                  json.loads(rbd("status", f"{POOL}/vm", "--format=json").stdout)["watchers"],
                  "a watcher")
            watcher = json.loads(rbd("status", f"{POOL}/vm", "--format=json").stdout)["watchers"][0]
            who = f"client.{watcher['client']} at {watcher['address']}"
            self.refused("convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", place, words=[who])
            self.refused("digest", "-f", "raw", place, words=[who])
            platter("info", "-f", "raw", place)
            platter("digest", "-U", "-f", "raw", place)
            other.stdin.write("write -P 7 64k 64k\nread -P 7 0 128k\n")
            said = other.communicate(timeout=60)[0]
            self.assertEqual((said.count("wrote"), said.count("read 131072/131072")), (2, 1), said)
        finally:
            other.kill()
            other.wait()
        platter("convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", place)
        self.check("vm", "disk.raw")

    # ---- being ended -----------------------------------------------------------------------------

    def ended(self, *signals):
        """A copy that signals end half way. What it leaves."""
        make_content("disk.raw", 60 * MIB, 17)
        with open("disk.raw", "r+b") as f:
            f.write(os.urandom(60 * MIB))
        job = start("convert", "-r", "10M", "-f", "raw", "-O", "raw", "disk.raw", f"rbd:{POOL}/new")
        until(names, "an image")
        time.sleep(0.7)
        for number in signals:
            job.send_signal(number)
            time.sleep(0.05)
        job.communicate(timeout=60)
        self.assertEqual(job.returncode, -signals[-1])
        return names()

    def test_killed(self):
        left = self.ended(signal.SIGKILL)
        self.assertEqual(len(left), 1)
        self.assertRegex(left[0], r"^\.new\.platter-partial-[0-9a-f]{8}$")
        until(lambda: rbd("rm", f"{POOL}/{left[0]}", code=range(256)).returncode == 0, "the watch to end", 90)


def ended(self, signals):
    self.assertEqual(self.ended(*signals), [])


for numbers in ([signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP],
                [signal.SIGINT, signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]):
    add_case(Images, "ended_by_" + "_".join(n.name for n in numbers), ended, numbers)


# ---- every format -----------------------------------------------------------------------------

FORMATS = {
    "disk.qcow2": ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw"],
    "packed.qcow2": ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw"],
    "disk.qcow": ["qemu-img", "convert", "-f", "raw", "-O", "qcow", "disk.raw"],
    "disk.vmdk": ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "disk.raw"],
    "stream.vmdk": ["qemu-img", "convert", "-f", "raw", "-O", "vmdk",
                    "-o", "subformat=streamOptimized", "disk.raw"],
}


def formats(self, name):
    make_content("disk.raw", 3 * MIB, 18)
    run(*FORMATS[name], name)
    rbd("import", name, f"{POOL}/{name}")
    place = f"rbd:{POOL}/{name}"
    for verb in ("digest", "map", "check"):
        ours, local = (platter(verb, image, code={0, 1, 63}) for image in (place, name))
        self.assertEqual(ours.returncode, local.returncode)
        self.assertEqual(ours.stdout.replace(place, name), local.stdout)
    platter("compare", "-F", "raw", place, "disk.raw")


def packed(self, packer):
    make_content("disk.raw", 3 * MIB, 19)
    run(*FORMATS["disk.qcow2"], "disk.qcow2")
    with open("packed", "wb") as f:
        subprocess.run([packer, "-c", "disk.qcow2"], check=True, stdout=f)
    rbd("import", "packed", f"{POOL}/packed")
    done = platter("digest", "--algorithm=sha256", f"rbd:{POOL}/packed")
    self.assertEqual(done.stdout.split()[0], sha256("disk.raw"))


def archive(self):
    make_content("disk.raw", 3 * MIB, 20)
    platter("archive", "create", "-q", "a.vma", "-d", "scsi0=disk.raw", "-f", "raw")
    rbd("import", "a.vma", f"{POOL}/a")
    platter("convert", "--view=scsi0", "-O", "raw", f"rbd:{POOL}/a", "back.raw")
    self.assertEqual(sha256("back.raw"), sha256("disk.raw"))


for one in FORMATS:
    add_case(Images, f"format_{one}", formats, one)
for one in ("gzip", "zstd", "xz"):
    add_case(Images, f"packed_{one}", packed, one)
add_case(Images, "archive", archive)

main()
