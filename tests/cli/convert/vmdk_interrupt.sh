# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Ctrl-C and kill while an image of several files is written leave what was there before.
data 8M a.raw
truncate -s 3G a.raw
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse b.vmdk 3G
cat b*.vmdk | sha256sum >before
for signals in INT INT,INT TERM; do
    python3 - $signals <<'END'
import signal, subprocess, sys, time
p = subprocess.Popen(["platter", "convert", "-r", "1M", "-f", "raw", "-O", "vmdk", "-o",
                      "subformat=twoGbMaxExtentSparse", "a.raw", "b.vmdk"], stderr=subprocess.DEVNULL,
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
time.sleep(1)
for name in sys.argv[1].split(","):
    p.send_signal(getattr(signal, "SIG" + name))
print("ended by", signal.Signals(-p.wait(timeout=20)).name, flush=True)
END
    left_here
    cat b*.vmdk | sha256sum | cmp - before
done
