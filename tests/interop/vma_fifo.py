# SPDX-License-Identifier: MIT
"""A restore as Proxmox VE drives one (vma.md section 8.2): the archive comes out of a pipe, its listing
is read up to the date, storage is made for each disk, and a FIFO tells the program where they go. The
program is platter under the name vma. And what is left where such a thing is broken off."""
import os
import random
import re
import signal
import subprocess
import time

from peers import MIB, PLATTER, Case, Failed, main, make_content, platter, qemu_img, sha256
from vma_writer import CLUSTER, archive, clusters

CONF = b"memory: 512\n" + b"".join(b"#qmdump#map:scsi%d:drive-scsi%d:local:raw:\n" % (i, i) for i in range(3))
DEV = re.compile(r"^DEV:\s+dev_id=(\d+)\s+size:\s+(\d+)\s+devname:\s+(\S+)$")
PROGRESS = re.compile(r"^progress (\d+)% \(read (\d+) bytes, duration (\d+) sec\)$")


def kill(process, number):
    process.send_signal(number)
    process.wait(60)


class Restore(Case):
    def setUp(self):
        super().setUp()
        os.symlink(PLATTER, "vma")
        self.sizes = {"drive-scsi0": 6 * MIB, "drive-scsi1": 540672, "drive-scsi2": 2 * MIB}
        for i, size in enumerate(self.sizes.values(), 1):
            make_content(f"{i}.raw", size, i)
        slots = [s for i in (1, 2, 3) for s in clusters(i, f"{i}.raw")]
        random.Random(1).shuffle(slots)
        devices = {i: (name, size) for i, (name, size) in enumerate(self.sizes.items(), 1)}
        archive("x.vma", devices, slots, configs=(("qemu-server.conf", CONF), ("qemu-server.fw", b"")))
        os.mkfifo("fifo")

    def begin(self, command):
        return subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def listen(self, process):
        """Reads up to the date; the disks by name, as they are told."""
        disks = {}
        for line in process.stdout:
            if found := DEV.match(line):
                disks[found[3]] = int(found[2])
            if line.startswith("CTIME: "):
                return disks
        raise Failed(process.stderr.read())

    def end(self, process, code=0):
        out, err = process.communicate(timeout=120)
        if (process.returncode == 0) != (code == 0) or "Sanitizer" in err or "runtime error:" in err:
            raise Failed(f"ended with {process.returncode}\n{out}\n{err}")
        return out, err

    def restore(self, command):
        """As the restore of Proxmox VE does it: one raw volume, one that is a little larger and not empty,
        and a qcow2."""
        process = self.begin(command)
        self.assertEqual(self.listen(process), self.sizes)
        with open("tmp/qemu-server.conf", "rb") as f:
            self.assertEqual(f.read(), CONF)
        with open("vm-1.raw", "wb") as f:
            f.truncate(6 * MIB)
        with open("vm-2", "wb") as f:
            f.write(b"\x55" * MIB)
        qemu_img("create", "-q", "-f", "qcow2", "vm-3.qcow2", "2M")
        with open("fifo", "w") as f:
            f.write("throttling.bps=50000000:throttling.group=local:format=raw:0:drive-scsi0=vm-1.raw\n"
                    "format=raw:1:drive-scsi1=vm-2\nformat=qcow2:0:drive-scsi2=vm-3.qcow2\ndone\n")
        out, _ = self.end(process)
        percents = [int(found[1]) for line in out.splitlines() if (found := PROGRESS.match(line))]
        self.assertEqual(percents[-1], 100)
        self.assertEqual(percents, sorted(set(percents)))
        self.assertEqual(sha256("vm-1.raw"), sha256("1.raw"))
        with open("vm-2", "rb") as f, open("2.raw", "rb") as good:
            self.assertEqual(f.read(), good.read() + b"\x55" * (MIB - 540672))
        qemu_img("compare", "-f", "raw", "-F", "qcow2", "3.raw", "vm-3.qcow2")
        qemu_img("check", "-q", "vm-3.qcow2")

    def test_out_of_a_pipe(self):
        self.restore("cat x.vma | ./vma extract -v -r fifo - tmp")

    def test_unpacked_by_another_program(self):
        subprocess.run(["zstd", "-q", "x.vma"], check=True)
        self.restore("zstd -q -d -c x.vma.zst | ./vma extract -v -r fifo - tmp")

    def test_out_of_a_file_that_is_packed(self):
        subprocess.run(["zstd", "-q", "--rm", "x.vma"], check=True)
        self.restore("./vma extract -v x.vma.zst -r fifo tmp")

    def test_who_unpacks_dies(self):
        process = self.begin("head -c 1000000 x.vma | ./vma extract -v -r fifo - tmp")
        self.listen(process)
        for i, size in enumerate(self.sizes.values(), 1):
            with open(f"vm-{i}.raw", "wb") as f:
                f.truncate(size)
        with open("fifo", "w") as f:
            f.write("".join(f"0:{name}=vm-{i}.raw\n" for i, name in enumerate(self.sizes, 1)) + "done\n")
        _, err = self.end(process, 1)
        self.assertIn("cut short", err)

    def test_the_controller_says_nothing(self):
        process = self.begin("cat x.vma | ./vma extract -r fifo - tmp")
        self.listen(process)
        with open("fifo", "w"):
            pass
        _, err = self.end(process, 1)
        self.assertIn("does not say where it goes", err)

    def feed(self, argv, seen):
        """Starts a program on a FIFO and gives it most of the archive; waits until `seen` is there."""
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        feeder = open("fifo", "wb", buffering=0)
        with open("x.vma", "rb") as f:
            feeder.write(f.read(os.path.getsize("x.vma") - CLUSTER))
        for _ in range(6000):
            if any(os.path.getsize(path) > 0 for path in seen()):
                return process, feeder
            time.sleep(0.01)
        raise Failed("it does not begin")

    def test_broken_off(self):
        def begun():
            return [e.path for e in os.scandir("tmp") if "disk" in e.name] if os.path.isdir("tmp") else []
        for number in signal.SIGKILL, signal.SIGTERM:
            process, feeder = self.feed(["./vma", "extract", "fifo", "tmp"], begun)
            if number == signal.SIGTERM:
                process.send_signal(number)
                feeder.close()
                process.wait(60)
            else:
                kill(process, number)
                feeder.close()
            self.assertNotEqual(process.returncode, 0)
            self.assertEqual({name.startswith(("tmp-disk-", "qemu-server")) for name in os.listdir("tmp")}, {True})
            for name in os.listdir("tmp"):
                os.unlink(f"tmp/{name}")
            os.rmdir("tmp")

    def test_broken_off_in_our_own_words(self):
        def begun():
            return [e.path for e in os.scandir("out") if "partial" in e.name] if os.path.isdir("out") else []
        for extra in [], ["-O", "qcow2"], ["-O", "vmdk", "--options", "subformat=streamOptimized"]:
            process, feeder = self.feed([PLATTER, "extract", *extra, "-o", "out", "fifo"], begun)
            process.send_signal(signal.SIGTERM)
            feeder.close()
            process.wait(60)
            self.assertEqual(process.returncode, -signal.SIGTERM)
            self.assertFalse(os.path.exists("out"))
        process, feeder = self.feed([PLATTER, "extract", "-o", "out", "fifo"], begun)
        kill(process, signal.SIGKILL)
        feeder.close()
        self.assertEqual([name for name in os.listdir("out") if name.startswith("drive")], [])

    def test_rates(self):
        """Two disks of one group have 4 MB a second together, and one alone has no limit."""
        for i, size in enumerate(self.sizes.values(), 1):
            with open(f"vm-{i}.raw", "wb") as f:
                f.truncate(size)
        with open("map", "w") as f:
            f.write("throttling.bps=4000000:throttling.group=g:0:drive-scsi0=vm-1.raw\n"
                    "throttling.bps=9000000:throttling.group=g:0:drive-scsi2=vm-3.raw\n"
                    "0:drive-scsi1=vm-2.raw\n")
        stored = sum(os.stat(f"{i}.raw").st_blocks * 512 for i in (1, 3))
        begun = time.monotonic()
        platter("vma", "extract", "x.vma", "-r", "map", "tmp")
        self.assertGreater(time.monotonic() - begun, stored / 4e6 * 0.5)
        for i in 1, 2, 3:
            self.assertEqual(sha256(f"vm-{i}.raw"), sha256(f"{i}.raw"))


if __name__ == "__main__":
    main()
