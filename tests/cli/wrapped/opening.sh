# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A file that has to be unpacked as a whole before it can be read at any place: how far that is, and its end
# when a signal says so.
data 12M x.raw 1
bzip2 -1 x.raw
size=$(stat -c %s x.raw.bz2)
platter convert -f qcow2 -O raw x.raw.bz2 none 2>/dev/null && exit 1
platter convert --progress=json --spool . -O qcow2 x.raw.bz2 out.qcow2 2>events
python3 - "$size" <<'END'
import json, sys
events = [json.loads(line) for line in open("events") if line.startswith("{")]
opening = [e["done"] for e in events if e["total"] == int(sys.argv[1])]
assert opening and opening == sorted(opening), events
print("it is told how far it is")
END
platter convert --spool . -O qcow2 x.raw.bz2 other.qcow2 2>/dev/null &
sleep 0.1
kill -TERM $!
code=0
wait $! || code=$?
echo "exit code $code"
ls
