# SPDX-License-Identifier: MIT
"""Live migration from a slow server: the reads of guests do not wait behind the copy.

Usage: migrate_way.py
"""
import random
import time

import nbd
from migrate import Background, MigrateCase, Target, migrate, status, wait_for_state
from nbd_servers import nbdkit
from peers import KIB, MIB, main

SIZE = 96 * MIB
READS = 20
# A server that does one thing after the other, and takes 0.1 s for each.
FILTERS, SLOW = ["noparallel", "delay"], ["serialize=all-requests", "delay-read=100ms"]


class Way(MigrateCase):
    def latencies(self, h):
        """Of reads at the end of the disk, where the copy is not yet."""
        took = []
        for n in range(READS):
            off = SIZE - (n + 1) * 64 * KIB
            begun = time.monotonic()
            h.pread(4 * KIB, off)
            took.append(time.monotonic() - begun)
            time.sleep(0.05)
        return sorted(took)

    def test_slow_source(self):
        with open("big.raw", "wb") as f:
            f.write(random.Random(3).randbytes(SIZE))
        source = self.started(nbdkit("file", "big.raw", *SLOW, filters=FILTERS))
        self.prepare("-f", "raw", source.uri)
        with Target("vm.qcow2") as s, Background("execute", "vm.qcow2") as copy:
            h = nbd.NBD()
            h.connect_uri(s.uri)
            wait_for_state("executing")
            time.sleep(1)
            took = self.latencies(h)
            print(f"median {took[READS // 2]:.3f} s, most {took[-1]:.3f} s", flush=True)
            self.assertEqual(status()["state"], "executing")
            copy.end()
            h.shutdown()
            migrate("commit", "vm.qcow2")
        # Its own, and one of the copy's; and not one of each of the eight workers.
        self.assertLess(took[READS // 2], 0.35)
        self.check_alone("vm.qcow2", "big.raw")


if __name__ == "__main__":
    main()
