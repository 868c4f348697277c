# SPDX-License-Identifier: MIT
# shellcheck shell=bash
data 4M a.raw
platter convert -p -f raw -O raw a.raw b.raw | tr '\r' '\n' | sed -n 1p
platter convert -p -f raw -O raw a.raw b.raw | tr '\r' '\n' | tail -2
platter convert -p -q -f raw -O raw a.raw b.raw
platter convert --progress=json -f raw -O raw a.raw b.raw 2>events
python3 - <<'END'
import json
events = [json.loads(line) for line in open("events")]
assert all(e["event"] == "progress" for e in events)
assert all(a["done"] <= b["done"] for a, b in zip(events, events[1:]))
print(sorted(events[-1]), events[-1]["done"], events[-1]["total"], events[-1]["percent"])
END
: >empty
platter convert -p -f raw -O raw empty b.raw | tr '\r' '\n' | tail -1
