# SPDX-License-Identifier: MIT
"""A cluster that does not answer. It is the whole one, so that nothing else may run meanwhile."""
import os
import time

from peers import MIB, Case, main, make_content, platter, run
from pool import POOL, names, rbd, remove, start, until


class Paused(Case):

    def test_no_answer(self):
        make_content("disk.raw", 9 * MIB, 14)
        rbd("import", "disk.raw", f"{POOL}/one")
        self.addCleanup(remove, "one")
        run("ceph", "osd", "pause")
        try:
            done = platter("digest", "-f", "raw", f"rbd:{POOL}/one?io_timeout=3", code=1)
            self.assertIn("io_timeout", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        finally:
            run("ceph", "osd", "unpause")
        self.check_digest(f"rbd:{POOL}/one", "raw", "disk.raw")

    def test_standstill(self):
        """What cannot be taken away any more is told, and not waited for long."""
        with open("disk.raw", "wb") as f:
            f.write(os.urandom(60 * MIB))
        job = start("convert", "-r", "10M", "-f", "raw", "-O", "raw", "disk.raw",
                    f"rbd:{POOL}/new?io_timeout=3")
        until(names, "an image")
        time.sleep(1)
        run("ceph", "osd", "pause")
        try:
            said = job.communicate(timeout=40)[1]
        finally:
            run("ceph", "osd", "unpause")
        self.assertEqual(job.returncode, 1)
        self.assertIn("io_timeout", said)
        self.assertIn("left behind", said)
        until(lambda: rbd("rm", f"{POOL}/{names()[0]}", code=range(256)).returncode == 0,
              "the watch to end", 90)


main()
