# SPDX-License-Identifier: MIT
"""A cluster that does not answer. It is the whole one, so that nothing else may run meanwhile."""
from peers import MIB, Case, main, make_content, platter, run
from pool import POOL, rbd, remove


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


main()
