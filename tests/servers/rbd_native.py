# SPDX-License-Identifier: MIT
"""Migrations that Ceph does by itself: what it may have it brings over whole, and what it reads wrong
it does not get."""
import json
import os
import signal
import subprocess
import time

import gateway
from nbd_servers import nbdkit
from peers import KIB, MIB, Case, main, make_content, platter, qemu_img, qemu_io, run, sha256
from pool import POOL, data, export, names, rbd, remove, start, until
from serve import Serve, wrap_nbdkit
from web_servers import Nginx

BUCKET = "native"
SIZE = 24 * MIB


def migrate(*argv, **more):
    return platter("migrate", *argv, **more)


def prepare(source, target, fmt="", *options, **more):
    return migrate("prepare", "--native", *options, *(["-f", fmt] if fmt else []), source, target,
                   **more)


def status(name, **more):
    return json.loads(migrate("status", "--output=json", f"rbd:{POOL}/{name}", **more).stdout)


class Native(Case):

    def setUp(self):
        super().setUp()
        make_content("disk.raw", SIZE, 1)

    def tearDown(self):
        for name in names():
            if "migrating" in rbd("info", f"{POOL}/{name}", code=range(256)).stdout:
                until(lambda n=name: run("rbd", "migration", "abort", "--no-progress", f"{POOL}/{n}",
                                         code=range(256)).returncode == 0, "nobody to watch", 60)
            else:
                remove(name)
        super().tearDown()

    def moves(self, source, fmt="", raw="disk.raw", name="vm", more=()):
        """Each step, and what can be read after it."""
        target = f"rbd:{POOL}/{name}"
        prepare(source, target, fmt, *more)
        self.assertEqual(status(name)["state"], "prepared")
        self.assertEqual(sha256(export(name, "exported")), sha256(raw))
        platter("compare", "-q", "-f", "raw", "-F", "raw", raw, target)
        self.assertIn("not all here yet", migrate("commit", target, code=5).stderr)
        told = json.loads(migrate("execute", "--progress=json", target).stderr.splitlines()[-1])
        self.assertEqual((told["done"], told["total"]), (os.path.getsize(raw),) * 2)
        told = status(name)
        self.assertEqual((told["state"], told["percent"], told["native"]), ("executed", 100, True))
        self.assertEqual(told["virtual-size"], os.path.getsize(raw))
        said = migrate("status", "--output=human", target).stdout
        for line in ("state:        executed", "copied by:    Ceph, 100 %", "written to:   not known"):
            self.assertIn(line, said)
        migrate("execute", target)  # there is nothing left to do
        migrate("commit", target)
        self.assertIn("is not being migrated", migrate("status", target, code=1).stderr)
        self.assertEqual(sha256(export(name, "exported")), sha256(raw))
        if not more:
            remove(name)
        return told

    def refused(self, source, *words, fmt="", more=()):
        said = prepare(source, f"rbd:{POOL}/no", fmt, *more, code=1).stderr
        for word in ("cannot be left to Ceph", *words):
            self.assertIn(word, said)
        self.assertEqual(names(), [])

    # ---- what Ceph brings over -------------------------------------------------------------------

    def test_formats(self):
        self.assertEqual(self.moves("disk.raw", "raw")["source"], os.path.abspath("disk.raw"))
        for name, options in {"v3.qcow2": ["-O", "qcow2"], "v1.qcow": ["-O", "qcow"],
                              "v2.qcow2": ["-O", "qcow2", "-o", "compat=0.10"],
                              "small.qcow2": ["-O", "qcow2", "-o", "cluster_size=4k"],
                              "lazy.qcow2": ["-O", "qcow2", "-o", "lazy_refcounts=on"]}.items():
            with self.subTest(name):
                qemu_img("convert", "-f", "raw", *options, "disk.raw", name)
                self.moves(name)
        platter("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "ours.qcow2")
        qemu_io("ours.qcow2", "qcow2", "write -zu 2M 1M")  # without a place: Ceph knows that
        qemu_img("convert", "-O", "raw", "ours.qcow2", "zeroed.raw")
        self.moves("ours.qcow2", raw="zeroed.raw")

    def test_snapshots(self):
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "vm.qcow2")
        qemu_img("snapshot", "-c", "mon", "vm.qcow2")
        qemu_io("vm.qcow2", "qcow2", "write -P 5 1M 300k", "write -zu 8M 1M")
        qemu_img("convert", "-O", "raw", "vm.qcow2", "tue.raw")
        qemu_img("snapshot", "-c", "tue", "vm.qcow2")
        qemu_io("vm.qcow2", "qcow2", "write -P 6 9M 64k", "write -P 7 23M 1M")
        qemu_img("convert", "-O", "raw", "vm.qcow2", "now.raw")
        self.refused("vm.qcow2", "--snapshots")
        self.moves("vm.qcow2", raw="now.raw", more=["--snapshots"])
        for name, raw in (("mon", "disk.raw"), ("tue", "tue.raw")):
            self.assertEqual(sha256(export(f"vm@{name}", "exported")), sha256(raw))

    def test_web(self):
        os.mkdir("www")
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "www/d 1.qcow2")
        run("cp", "disk.raw", "www/d.raw")
        server = Nginx()
        self.addCleanup(server.stop)
        told = self.moves(server.url("d%201.qcow2"))
        self.assertEqual(told["source"], server.url("d%201.qcow2"))
        self.moves(server.url("d.raw"), "raw")
        self.refused(server.url("d 1.qcow2"), "percent-encoded")
        self.refused(server.url("d.raw?signed=yes"), "behind the ?", fmt="raw")
        self.refused(server.url("d.raw", "whole"), "ranges", fmt="raw")
        login = server.url("private/d.raw", login="me:pass%20word@")
        self.refused(login, '"user"', fmt="raw")
        self.refused(json.dumps({"type": "raw", "stream": {
            "type": "http", "url": server.url("d.raw"), "timeout": 5}}), '"timeout"')
        said = prepare(server.url("moved/d.raw"), f"rbd:{POOL}/no", "raw", code=1).stderr
        self.assertIn("follows no redirects", said)
        self.assertEqual(names(), [])

    def test_s3(self):
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "d.qcow2")
        gateway.put_file(f"/{BUCKET}/in a/d+1.qcow2", "d.qcow2")
        keys = {"access_key": gateway.ACCESS_KEY, "secret_key": gateway.SECRET_KEY}
        place = {"type": "s3", "bucket": BUCKET, "key": "in a/d+1.qcow2",
                 "endpoint": gateway.ENDPOINT}
        told = self.moves(json.dumps({"type": "qcow", "stream": {**place, **keys}}))
        self.assertNotIn(gateway.SECRET_KEY, json.dumps(told))
        url = f"{gateway.ENDPOINT}/{BUCKET}/in%20a/d%2B1.qcow2"
        self.moves(json.dumps({"type": "qcow", "stream": {"type": "s3", "url": url, **keys}}))
        self.refused(json.dumps({"type": "qcow", "stream": {
            **place, **keys, "secret_key": "env:AWS_SECRET_ACCESS_KEY"}}), "written out")
        self.refused(f"s3://{BUCKET}/in a/d+1.qcow2", "endpoint")
        self.refused(json.dumps({"type": "qcow", "stream": {**place, **keys, "style": "path"}}),
                     '"style"')

    def test_place_of_the_target(self):
        """Its keys say how the image is made."""
        self.assertIn("not qcow2", prepare("disk.raw", f"rbd:{POOL}/vm", "raw", "-O", "qcow2",
                                           code=1).stderr)
        prepare("disk.raw", f"rbd:{POOL}/vm?object_size=1M&features=layering", "raw")
        told = json.loads(rbd("info", "--format=json", f"{POOL}/vm").stdout)
        self.assertEqual((told["object_size"], told["features"]), (MIB, ["layering", "migrating"]))
        said = prepare("disk.raw", f"rbd:{POOL}/vm", "raw", code=1).stderr
        self.assertIn("exists already", said)
        said = prepare("disk.raw", "out.raw", "raw", code=1).stderr
        self.assertIn("only a target in Ceph", said)
        self.assertEqual(status("vm")["state"], "prepared")
        self.addCleanup(os.environ.update, PATH=wrap_nbdkit(self.dir))
        said = migrate("serve", f"rbd:{POOL}/vm", code=1).stderr
        self.assertIn("needs no owner", said)
        self.assertIn("at its own rate",
                      migrate("execute", "--rate=1M", f"rbd:{POOL}/vm", code=1).stderr)

    def test_namespace(self):
        target = f"rbd:{POOL}/space/vm"
        rbd("namespace", "create", f"{POOL}/space")
        prepare("disk.raw", target, "raw")
        for verb in ("execute", "commit"):
            migrate(verb, target)
        self.assertEqual(sha256(export("space/vm", "exported")), sha256("disk.raw"))
        rbd("rm", f"{POOL}/space/vm")
        rbd("namespace", "rm", f"{POOL}/space")

    # ---- what Ceph does not get ------------------------------------------------------------------

    def test_refused(self):
        made = {
            "packed.qcow2": (["-O", "qcow2", "-c"], "compressed"),
            "wide.qcow2": (["-O", "qcow2", "-o", "extended_l2=on"], "incompatible_features"),
            "zstd.qcow2": (["-O", "qcow2", "-o", "compression_type=zstd"], "incompatible_features"),
            "apart.qcow2": (["-O", "qcow2", "-o", "data_file=apart.raw"], "incompatible_features"),
            "d.vmdk": (["-O", "vmdk"], "not vmdk"),
        }
        for name, (options, word) in made.items():
            with self.subTest(name):
                qemu_img("convert", "-f", "raw", *options, "disk.raw", name)
                self.refused(name, word)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "d.vmdk", "-F", "vmdk", "top.qcow2")
        self.refused("top.qcow2", "backing file")
        run("gzip", "-k", "disk.raw")
        self.refused('{"type":"raw","compressed":true,"stream":{"type":"file","file_path":'
                     '"disk.raw.gz"}}', "gzip")
        with open("odd.raw", "wb") as f:
            f.truncate(MIB + 1)
        self.refused("odd.raw", "1048577", fmt="raw")
        self.refused('{"type":"raw","stream":{"type":"file","file_path":"disk.raw","offset":512}}',
                     '"offset"')
        self.refused('{"type":"raw","stream":{"type":"file","file_path":"disk.raw"},"snapshots":['
                     '{"type":"raw","stream":{"type":"file","file_path":"odd.raw"}}]}', "list")

    def test_one_cluster(self):
        """Among many, wherever it stands: of the disk, or of a snapshot."""
        for fmt in ("qcow2", "qcow"):
            qemu_img("create", "-q", "-f", fmt, "vm", "1G")
            size = "64k" if fmt == "qcow2" else "4k"
            qemu_io("vm", fmt, "write -P 1 0 1M", f"write -c -P 2 700M {size}",
                    "write -P 3 900M 1M")
            self.refused("vm", "compressed (at offset 734003200)", fmt=fmt)
            os.unlink("vm")
        qemu_img("create", "-q", "-f", "qcow2", "vm", "1G")
        qemu_io("vm", "qcow2", "write -c -P 2 700M 64k")
        qemu_img("snapshot", "-c", "then", "vm")
        qemu_io("vm", "qcow2", "write -P 3 700M 64k")
        self.refused("vm", "compressed (at offset 734003200)", more=["--snapshots"])
        qemu_img("snapshot", "-d", "then", "vm")
        prepare("vm", f"rbd:{POOL}/vm")

    def test_zeros_that_keep_their_place(self):
        """Ceph reads what was there before, and says nothing. If that changes this test tells."""
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "vm.qcow2")
        qemu_io("vm.qcow2", "qcow2", "write -P 9 3M 1M", "write -z 3M 64k")
        self.refused("vm.qcow2", "offset 3145728", "keep their place")
        spec = {"type": "qcow", "stream": {"type": "file", "file_path": os.path.abspath("vm.qcow2")}}
        rbd("migration", "prepare", "--import-only", "--source-spec", json.dumps(spec),
            f"{POOL}/wrong")
        with open(export("wrong", "exported"), "rb") as f:
            f.seek(3 * MIB)
            self.assertEqual(f.read(64 * KIB), b"\x09" * 64 * KIB)

    def test_cut_off(self):
        """Ceph reads the last cluster as a whole, which a file need not have."""
        qemu_img("create", "-q", "-f", "qcow2", "vm.qcow2", "1000k")
        qemu_io("vm.qcow2", "qcow2", "write -P 7 960k 40k")
        run("truncate", "-s", os.path.getsize("vm.qcow2") - 64 * KIB + 40 * KIB, "vm.qcow2")
        self.refused("vm.qcow2", "offset 983040 ends behind the end of the file")

    def test_nbd(self):
        """Newer versions of Ceph know it."""
        server = nbdkit("memory", "2M")
        self.addCleanup(server.stop)
        done = prepare(server.uri, f"rbd:{POOL}/nbd", "raw", code={0, 1})
        if done.returncode:
            self.assertIn("does not know sources of that kind", done.stderr)
            self.assertEqual(names(), [])
        else:
            migrate("execute", f"rbd:{POOL}/nbd")

    # ---- while it is migrated --------------------------------------------------------------------

    def test_used_meanwhile(self):
        """What asks what is stored would end the process, were it asked of Ceph."""
        target = f"rbd:{POOL}/vm"
        prepare("disk.raw", target, "raw")
        told = json.loads(platter("info", "--output=json", "-f", "raw", target).stdout)
        self.assertIn("migrating", told["place"]["features"])
        self.assertNotIn("actual-size", told)
        platter("info", "-f", "raw", target)
        self.assertEqual(data(target), [(0, SIZE)])
        platter("measure", "-f", "raw", "-O", "qcow2", target)
        platter("convert", "-f", "raw", "-O", "qcow2", target, "copy.qcow2")
        platter("compare", "-q", "-f", "raw", "disk.raw", "copy.qcow2")
        self.addCleanup(os.environ.update, PATH=wrap_nbdkit(self.dir))
        with Serve("-f", "raw", target) as server:
            run("nbdcopy", server.uri, "served.raw")
            self.assertEqual(sha256("served.raw"), sha256("disk.raw"))
            self.assertNotIn("hole", run("nbdinfo", "--map", server.uri).stdout)
            qemu_io(server.uri, "raw", "write -P 8 5M 64k")
        qemu_io("disk.raw", "raw", "write -P 8 5M 64k")
        migrate("execute", target)
        migrate("commit", target)
        self.assertEqual(sha256(export("vm", "exported")), sha256("disk.raw"))

    def test_snapshots_meanwhile(self):
        """... nor in what two of them differ."""
        target = f"rbd:{POOL}/vm"
        prepare("disk.raw", target, "raw")
        platter("snapshot", "-c", "one", "-f", "raw", target)
        qemu_io(target, "raw", "write -P 8 5M 64k")
        platter("snapshot", "-c", "two", "-f", "raw", target)
        told = platter("snapshot", "diff", "-f", "raw", "--output=json", target, "one", "two").stdout
        for end in json.loads(told)["extents"]:
            self.assertTrue(end["data"])
        platter("convert", "--snapshots", "-f", "raw", "-O", "qcow2", target, "all.qcow2")
        self.assertEqual(platter("digest", "all.qcow2@one").stdout.split()[0],
                         platter("digest", "-f", "raw", "disk.raw").stdout.split()[0])

    def test_cancelled(self):
        """It cannot be stopped, so the process has to end; another one goes on."""
        target = f"rbd:{POOL}/vm"
        with open("large.raw", "wb") as f:
            f.write(os.urandom(300 * MIB))
        prepare("large.raw", target, "raw")
        began = time.monotonic()
        slow = f"{target}?config=rbd_concurrent_management_ops%3D1"
        said = run(os.environ["NATIVE"], slow).stdout
        self.assertIn("copies until this process ends", said)
        self.assertIn("copies it already", said)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(status("vm")["state"], "executing")
        again = start("migrate", "execute", slow)
        time.sleep(2)  # it waits for the lock of the one that has ended
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=10)
        self.assertEqual(again.returncode, -signal.SIGINT)
        migrate("execute", target)
        migrate("commit", target)
        self.assertEqual(sha256(export("vm", "exported")), sha256("large.raw"))

    def test_abort(self):
        target = f"rbd:{POOL}/vm"
        prepare("disk.raw", target, "raw")
        self.assertIn("--discard-writes", migrate("abort", target, code=1).stderr)
        writer = subprocess.Popen(["qemu-io", "-f", "raw", target], stdin=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL)
        until(lambda: json.loads(rbd("status", f"{POOL}/vm", "--format=json").stdout)["watchers"],
              "a watcher")
        self.assertIn("has the image open", migrate("abort", "--discard-writes", target, code=1).stderr)
        writer.communicate(b"quit\n", timeout=60)
        migrate("abort", "--discard-writes", target)
        self.assertEqual(names(), [])
        rbd("create", "--size=1M", f"{POOL}/plain")
        for other in (target, f"rbd:{POOL}/plain", "disk.raw"):
            self.assertIn("is not being migrated", migrate("status", other, code=1).stderr)

    def test_source_gone(self):
        """Everything says so, and it can be aborted."""
        target = f"rbd:{POOL}/vm"
        prepare("disk.raw", target, "raw")
        os.unlink("disk.raw")
        # The library itself loses memory then.
        calm = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        told = status("vm", env=calm)
        self.assertEqual((told["state"], told["virtual-size"]), ("failed", None))
        self.assertIn("cannot be opened", told["error"])
        self.assertIn("cannot be opened", migrate("execute", target, code=4, env=calm).stderr)
        said = platter("info", "-f", "raw", target, code=1, env=calm).stderr
        self.assertIn("what it is migrated from", said)
        migrate("abort", "--discard-writes", target, env=calm)
        self.assertEqual(names(), [])

    def test_inside(self):
        """What is migrated from an image of the cluster is not ours: a commit would remove that."""
        rbd("create", "--size=8M", f"{POOL}/here")
        rbd("migration", "prepare", f"{POOL}/here", f"{POOL}/there")
        for verb in ("status", "execute", "commit", "abort"):
            said = migrate(verb, f"rbd:{POOL}/there", code=1).stderr
            self.assertIn("another image of the cluster", said)
        rbd("migration", "abort", "--no-progress", f"{POOL}/there")


if __name__ == "__main__":
    gateway.put(f"/{BUCKET}")
    main()
