# SPDX-License-Identifier: MIT
"""By what objects of S3 and images in Ceph are known again."""
import json
import time

import gateway
from known import Known, known
from peers import MIB, Case, main, make_content, run
from pool import POOL, info, names, rbd, remove

BUCKET = "identities"


class Identity(Case):

    def tearDown(self):
        for name in names():
            remove(name)
        super().tearDown()

    def changed(self, image, before, *words):
        with Known(image, "raw") as k:
            said = k.again(before)
        for word in ("the source has changed", *words):
            self.assertIn(word, said)

    def test_s3(self):
        make_content("disk.raw", MIB, 1)
        gateway.put_file(f"/{BUCKET}/disk", "disk.raw")
        gateway.put_file(f"/{BUCKET}/same", "disk.raw")
        words, before = known(f"s3://{BUCKET}/disk", "raw")
        self.assertEqual(words, {"size": str(MIB),
                                 "etag": f'"{run("md5sum", "disk.raw").stdout.split()[0]}"'})
        self.assertNotIn(gateway.SECRET_KEY, before)
        self.assertNotIn(gateway.ACCESS_KEY, before)
        with Known(f"s3://{BUCKET}/same", "raw") as k:
            self.assertEqual(k.again(before), "same")
        gateway.put(f"/{BUCKET}/disk", bytes(MIB))
        self.changed(f"s3://{BUCKET}/disk", before, "its etag was ")

    def test_snapshot(self):
        make_content("disk.raw", 8 * MIB, 2)
        rbd("import", "disk.raw", f"{POOL}/disk")
        rbd("snap", "create", "--no-progress", f"{POOL}/disk@then")
        place = f"rbd:{POOL}/disk@then"
        words, before = known(place, "raw")
        self.assertEqual(set(words), {"cluster", "pool", "image", "size", "snapshot"})
        self.assertEqual(words["image"], info("disk")["id"])
        with Known(place, "raw") as k:
            rbd("bench", "--io-type=write", "--io-size=4M", "--io-total=8M", f"{POOL}/disk")
            rbd("snap", "create", "--no-progress", f"{POOL}/disk@later")
            rbd("rename", f"{POOL}/disk", f"{POOL}/other")
            self.assertEqual(k.again(), "same")
            rbd("snap", "rm", f"{POOL}/other@then")
            self.assertIn("was removed", k.again())
        rbd("rename", f"{POOL}/other", f"{POOL}/disk")
        rbd("snap", "create", "--no-progress", f"{POOL}/disk@then")
        self.changed(place, before, "its snapshot was ")

    def test_head(self):
        """Reading is no change; writing is one, also within the minute in which no time is noted."""
        make_content("disk.raw", 8 * MIB, 3)
        for features in ((), ("--image-feature=layering",)):
            rbd("import", *features, "disk.raw", f"{POOL}/disk")
            place = f"rbd:{POOL}/disk"
            with Known(place, "raw") as k:
                words = k.words()
                self.assertEqual("map" in words, not features)
                rbd("export", f"{POOL}/disk", "exported")
                run("rm", "exported")
                known(place, "raw")
                self.assertEqual(k.again(), "same")
            with Known(place, "raw") as k:
                self.assertEqual(k.words(), words)
                before = k.first
                often = ["--rbd-mtime-update-interval=1"] if features else []  # nothing else tells
                for _ in range(5 if features else 1):  # and not each time: whoever writes is in no hurry
                    time.sleep(1.2)
                    rbd("bench", "--io-type=write", "--io-size=4K", "--io-total=4K", f"{POOL}/disk",
                        *often)
                    again = k.again()
                    if "changed: " in again:
                        break
                self.assertIn("changed: ", again)
            self.changed(place, before)
            rbd("resize", "--no-progress", "--size=9M", f"{POOL}/disk")
            self.changed(place, before, "its size was 8388608, and is 9437184")
            remove("disk")

    def test_removed(self):
        make_content("disk.raw", MIB, 4)
        rbd("import", "disk.raw", f"{POOL}/disk")
        before = known(f"rbd:{POOL}/disk", "raw")[1]
        remove("disk")
        rbd("import", "disk.raw", f"{POOL}/disk")
        self.changed(f"rbd:{POOL}/disk", before, "its image was ")
        self.assertNotIn(run("ceph", "auth", "print-key", "client.admin").stdout.strip(), before)
        self.assertEqual(json.loads(before)[0]["files"][0]["name"], f"rbd:{POOL}/disk")


if __name__ == "__main__":
    gateway.put(f"/{BUCKET}")
    main()
