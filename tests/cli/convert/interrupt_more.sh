# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Signals that find nothing to cancel, come twice, or are to be ignored: nothing is left lying about.
data 8M a.raw
cat >signals.py <<'END'
import signal, subprocess, sys, time
before, numbers, command = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
p = subprocess.Popen(command, stderr=subprocess.DEVNULL,
                     preexec_fn=lambda: signal.signal(signal.SIGHUP, getattr(signal, before)))
time.sleep(1)
for number in numbers:
    p.send_signal(getattr(signal, number))
code = p.wait(timeout=60)
print("exit code", code if code >= 0 else signal.Signals(-code).name, flush=True)
END
slow=(platter convert -r 2M -f raw -O qcow2 a.raw b.qcow2)
python3 signals.py SIG_DFL SIGHUP "${slow[@]}"
left_here
python3 signals.py SIG_DFL SIGTERM,SIGTERM "${slow[@]}"
left_here
python3 signals.py SIG_IGN SIGHUP "${slow[@]}"
left_here
# Endless zeros to write, as far as this case is concerned.
python3 signals.py SIG_DFL SIGTERM platter create -q -f raw -o preallocation=full full.raw 64G
left_here
