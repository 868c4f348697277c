#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kernel.py DISK [FORMAT]: starts a machine from a disk, and ends it when its kernel says the first word.

The machine is emulated; what is written to the disk is lost.
"""
import subprocess
import sys
import threading

PATIENCE = 60  # seconds
FIRST = b"Linux version "


def main():
    disk, fmt = sys.argv[1], (sys.argv[2:] or ["raw"])[0]
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
               "-machine", "pc,accel=tcg", "-m", "512", "-drive", f"if=virtio,file={disk},format={fmt},snapshot=on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        patience = threading.Timer(PATIENCE, machine.kill)
        patience.start()
        booted = any(FIRST in line for line in machine.stdout)
        patience.cancel()
        machine.kill()
    return 0 if booted else "no kernel was started"


sys.exit(main())
