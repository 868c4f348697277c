# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Ctrl-C and kill leave nothing; the program ends by the signal, also where the rate has it wait for
# minutes.
data 8M a.raw
for signal in INT TERM; do
    rate=1M
    if [ $signal = TERM ]; then rate=1k; fi
    code=0
    python3 - $signal $rate <<'END' || code=$?
import signal, subprocess, sys, time
number = getattr(signal, "SIG" + sys.argv[1])
p = subprocess.Popen(["platter", "convert", "-r", sys.argv[2], "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"],
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
time.sleep(1)
p.send_signal(number)
print("ended by", signal.Signals(-p.wait(timeout=20)).name, flush=True)
END
    echo "exit code $code"
    left_here
done
