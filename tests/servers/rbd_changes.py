# SPDX-License-Identifier: MIT
"""What others do to an image in Ceph while we read it, and a cluster while we wait: never a wrong byte,
and no wait for nothing."""
import json
import os
import signal
import time

from peers import KIB, MIB, Case, main, make_content, platter, qemu_io, run, sha256
from pool import POOL, info, names, rbd, remove, start, until

SIZE = 60 * MIB
SECRET = "QVFDc2VjcmV0c2VjcmV0c2VjcmV0"


def pool_is_full():
    pools = json.loads(run("ceph", "osd", "pool", "ls", "detail", "--format=json").stdout)
    return "full" in next(p for p in pools if p["pool_name"] == POOL)["flags_names"].split(",")


def write(name):
    rbd("bench", "--io-type=write", "--io-size=4M", f"--io-total={SIZE}", f"{POOL}/{name}")


class Changes(Case):

    def setUp(self):
        super().setUp()
        with open("disk.raw", "wb") as f:
            f.write(os.urandom(SIZE))

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    # ---- of what is read -------------------------------------------------------------------------

    def test_changed_meanwhile(self):
        """Each of them reads as something else from then on, and nothing else would tell."""
        changes = {"removed": lambda: rbd("rm", f"{POOL}/removed"),
                   "cut": lambda: rbd("resize", "--no-progress", "--allow-shrink", "--size=1",
                                      f"{POOL}/cut"),
                   "written": lambda: write("written"),
                   "snapshot": lambda: rbd("snap", "rm", f"{POOL}/snapshot@then"),
                   "safe": lambda: write("safe")}
        words = {"removed": "removed", "cut": "open for writing", "written": "open for writing",
                 "snapshot": "removed"}
        for name in changes:
            rbd("import", "disk.raw", f"{POOL}/{name}")
        for name in ("snapshot", "safe"):
            rbd("snap", "create", "--no-progress", f"{POOL}/{name}@then")
        write("snapshot")  # what the snapshot has stands in the image no more
        jobs = {name: start("convert", "-r", "10M", "-f", "raw", "-O", "raw", f"rbd:{POOL}/{name}" +
                            ("@then" if name in ("snapshot", "safe") else ""), f"{name}.raw")
                for name in changes}
        time.sleep(1)
        for change in changes.values():
            change()
        said = {name: job.communicate(timeout=60)[1] for name, job in jobs.items()}
        for name, word in words.items():
            self.assertEqual(jobs[name].returncode, 1, said)
            self.assertIn(word, said[name])
            self.assertFalse(os.path.exists(f"{name}.raw"))
        self.assertEqual((jobs["safe"].returncode, sha256("safe.raw")), (0, sha256("disk.raw")))

    def test_read_by_several(self):
        """Reading is no change, and leaves none."""
        rbd("import", "disk.raw", f"{POOL}/one")
        before = info("one")
        jobs = [start("digest", "-f", "raw", f"rbd:{POOL}/one") for _ in range(2)]
        rbd("export", f"{POOL}/one", "exported")
        for job in jobs:
            self.assertEqual((job.communicate(timeout=60)[1], job.returncode), ("", 0))
        self.assertEqual(info("one"), before)

    def test_snapshot_of_a_held_image(self):
        rbd("import", "disk.raw", f"{POOL}/vm")
        rbd("snap", "create", "--no-progress", f"{POOL}/vm@then")
        writer = start("convert", "-n", "-r", "5M", "-f", "raw", "-O", "raw", "disk.raw",
                       f"rbd:{POOL}/vm")
        until(lambda: json.loads(rbd("status", f"{POOL}/vm", "--format=json").stdout)["watchers"],
              "a watcher")
        platter("digest", "-f", "raw", f"rbd:{POOL}/vm", code=1)
        self.check_digest(f"rbd:{POOL}/vm@then", "raw", "disk.raw")
        writer.terminate()
        self.assertIn("incomplete", writer.communicate(timeout=60)[1])

    # ---- of what is written ----------------------------------------------------------------------

    def test_full(self):
        """A client of Ceph waits for space, for ever, unless it asks to be told."""
        rbd("create", "--size=60M", f"{POOL}/there")
        run("ceph", "osd", "pool", "set-quota", POOL, "max_bytes", 1)
        try:
            until(pool_is_full, "the pool to be full", 60)
            began = time.monotonic()
            for argv in (["disk.raw", f"rbd:{POOL}/new"], ["-n", "disk.raw", f"rbd:{POOL}/there"]):
                done = platter("convert", "-f", "raw", "-O", "raw", *argv, code=1)
                self.assertIn("is full", done.stderr)
            self.assertLess(time.monotonic() - began, 20)
            self.assertEqual(names(), ["there"])
        finally:
            run("ceph", "osd", "pool", "set-quota", POOL, "max_bytes", 0)
            until(lambda: not pool_is_full(), "the pool to have room", 60)

    # ---- being ended -----------------------------------------------------------------------------

    def test_ended_while_it_waits(self):
        place = f"rbd:{POOL}/new?mon_host=127.0.0.1:9&timeout=20"
        for argv in (["info", "-f", "raw", place], ["digest", "-f", "raw", place],
                     ["convert", "-f", "raw", "-O", "raw", "disk.raw", place]):
            job = start(*argv)
            time.sleep(1)
            began = time.monotonic()
            job.send_signal(signal.SIGINT)
            job.communicate(timeout=60)
            self.assertEqual(job.returncode, -signal.SIGINT)
            self.assertLess(time.monotonic() - began, 5)

    # ---- what is told ----------------------------------------------------------------------------

    def test_info(self):
        place = f"rbd:{POOL}/clone"
        rbd("import", "--object-size=1M", "disk.raw", f"{POOL}/base")
        rbd("snap", "create", "--no-progress", f"{POOL}/base@then")
        rbd("snap", "protect", f"{POOL}/base@then")
        try:
            rbd("clone", "--object-size=1M", f"{POOL}/base@then", f"{POOL}/clone")
            qemu_io(place, "raw", "write -P 1 5M 64k")
            told = json.loads(platter("info", "--output=json", "-f", "raw", place).stdout)
            self.assertEqual((told["actual-size"], told["cluster-size"]), (MIB, MIB))
            self.assertEqual(told["place"],
                             {"type": "rbd", "id": info("clone")["id"], "object-size": MIB,
                              "features": told["place"]["features"],
                              "parent": f"{POOL}/base@then"})
            self.assertEqual(set(told["place"]["features"]), set(info("clone")["features"]))
            told = platter("info", "-f", "raw", place).stdout
            for line in ("cluster_size: 1048576", "disk size: 1 MiB", f"parent: {POOL}/base@then"):
                self.assertIn(line, told)
            self.check_digest(place, "raw", self.cloned())
        finally:
            remove("clone")
            rbd("snap", "unprotect", f"{POOL}/base@then")
        rbd("create", "--size=1", "--image-feature=layering", f"{POOL}/plain")
        told = json.loads(platter("info", "--output=json", "-f", "raw", f"rbd:{POOL}/plain").stdout)
        self.assertNotIn("actual-size", told)

    def cloned(self):
        with open("disk.raw", "r+b") as f:
            f.seek(5 * MIB)
            f.write(b"\1" * 64 * KIB)
        return "disk.raw"

    def test_no_key_is_told(self):
        make_content("small.raw", MIB, 30)
        rbd("create", "--size=1K", f"{POOL}/small")
        rbd("create", "--size=1M", f"{POOL}/large")
        key = run("ceph", "auth", "print-key", "client.admin").stdout.strip()
        for name in (f"{POOL}/small?key={key}", f"{POOL}/small:key={key}",
                     f"{POOL}/large?key={SECRET}"):
            shown = [platter("convert", "-n", "-f", "raw", "-O", "raw", "small.raw", f"rbd:{name}",
                             code=1)]
            shown.append(platter("convert", "-f", "raw", "-O", "raw", "small.raw", f"rbd:{name}",
                                 code=1))
            shown.append(platter("create", "-f", "raw", f"rbd:{name}new", "1M", code={0, 1}))
            for done in shown:
                for secret in (key, SECRET):
                    self.assertNotIn(secret, done.stdout + done.stderr)


main()
