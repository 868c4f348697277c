# SPDX-License-Identifier: MIT
"""Source-specs over real servers: native images, S3 and web servers, and lists of snapshots there."""
import json
import os

import gateway
from peers import MIB, Case, main, make_content, platter, qemu_img, run, sha256
from pool import POOL, export, names, rbd, remove

BUCKET = "sources"
KEYS = {"access_key": "env:S3_ACCESS_KEY", "secret_key": "env:S3_SECRET_KEY"}


def s3(key, **keys):
    return {"type": "s3", "url": f"{os.environ['S3_ENDPOINT']}/{BUCKET}/{key}", **KEYS, **keys}


def native(image, **keys):
    return {"type": "native", "pool_name": POOL, "image_name": image, **keys}


class Sources(Case):

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    def same(self, document, raw, *more):
        self.assertEqual(platter("digest", *more, json.dumps(document)).stdout.split()[0],
                         platter("digest", "-f", "raw", raw).stdout.split()[0])

    def refused(self, document, *words):
        told = platter("info", json.dumps(document), code=1).stderr
        for word in words:
            self.assertIn(word, told)

    def test_native(self):
        make_content("old.raw", 3 * MIB, 1)
        make_content("new.raw", 3 * MIB, 2)
        rbd("import", "old.raw", f"{POOL}/disk")
        rbd("snap", "create", f"{POOL}/disk@mon")
        platter("convert", "-n", "-f", "raw", "-O", "raw", "new.raw", f"rbd:{POOL}/disk")
        self.same(native("disk"), "new.raw")
        self.same(native("disk", snap_name="mon"), "old.raw")
        number = run("ceph", "osd", "pool", "ls", "detail", "--format=json").stdout
        number = next(p["pool_id"] for p in json.loads(number) if p["pool_name"] == POOL)
        for pool_id in (number, str(number)):
            self.same({"type": "native", "pool_id": pool_id, "image_name": "disk"}, "new.raw")
        self.assertEqual(platter("digest", json.dumps(native("disk")) + "@mon").stdout.split()[0],
                         platter("digest", "-f", "raw", "old.raw").stdout.split()[0])
        self.refused(native("nothing"), "nothing")
        self.refused(native("disk", pool_id=number), "pool_")
        self.refused(native("disk", stream={}), "stream: must not be given")

    def test_formats(self):
        make_content("disk.raw", 3 * MIB, 3)
        for fmt, more in (("qcow2", ["-c"]), ("vmdk", [])):
            qemu_img("convert", *more, "-f", "raw", "-O", fmt, "disk.raw", "image")
            gateway.put_file(f"/{BUCKET}/image", "image")
            kind = "qcow" if fmt.startswith("qcow") else fmt
            self.same({"type": kind, "stream": s3("image")}, "disk.raw")
            rbd("import", "image", f"{POOL}/image")
            self.same({"type": kind, "stream": {"type": "rbd", "pool_name": POOL,
                                                "image_name": "image"}}, "disk.raw")
            remove("image")

    def test_snapshots(self):
        """A list of states in three places becomes snapshots of an image, in order."""
        make_content("mon.raw", 2 * MIB, 4)
        run("cp", "mon.raw", "tue.raw")
        with open("tue.raw", "r+b") as f:
            f.seek(MIB)
            f.write(b"tuesday")
            f.truncate(3 * MIB)
        make_content("now.raw", 3 * MIB, 5)
        gateway.put_file(f"/{BUCKET}/mon", "mon.raw")
        rbd("import", "tue.raw", f"{POOL}/tue")
        document = {"type": "raw", "stream": {"type": "file", "file_path": "now.raw"}, "snapshots": [
            {"type": "raw", "name": "mon", "stream": s3("mon")},
            {"type": "raw", "name": "tue", "stream": {"type": "rbd", "pool_name": POOL,
                                                      "image_name": "tue"}}]}
        with open("spec.json", "w") as f:
            json.dump(document, f)
        platter("convert", "--snapshots", "-O", "raw", "json:spec.json", f"rbd:{POOL}/copy")
        for name, raw in (("copy@mon", "mon.raw"), ("copy@tue", "tue.raw"), ("copy", "now.raw")):
            self.assertEqual(sha256(export(name, "exported")), sha256(raw))
        self.assertEqual([s["name"] for s in json.loads(
            rbd("snap", "ls", "--format=json", f"{POOL}/copy").stdout)], ["mon", "tue"])

    def test_secrets(self):
        told = platter("info", json.dumps({"type": "raw", "stream": s3(
            "nothing", secret_key="hunter2")}), code=1).stderr
        self.assertNotIn("hunter2", told)
        self.refused({"type": "raw", "stream": {"type": "s3", "url": "x", "acces_key": "hunter2"}},
                     "stream.acces_key: is not known")


if __name__ == "__main__":
    gateway.put(f"/{BUCKET}")
    main()
