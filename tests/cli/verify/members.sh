# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A compressed file of many members: what is behind a damaged one is found, in a pipe as well.
data 3M a.raw 1
archive x.vma -p 8 drive-scsi0=a.raw
python3 - <<'END'
import gzip

whole = open("x.vma", "rb").read()
members = [gzip.compress(whole[at:at + 300000], 0, mtime=0) for at in range(0, len(whole), 300000)]
open("x.vma.gz", "wb").write(b"".join(members))
members[4] = members[4][:10] + b"\x07" + members[4][11:]
open("bad.vma.gz", "wb").write(b"".join(members))
END
platter verify -q x.vma.gz
cat >show.py <<'END'
import json, sys

a = json.load(sys.stdin)
print(a["missing"], a["devices"][0]["holes"], sum(f["kind"] == "wrapper" for f in a["faults"]))
END
platter verify --output=json bad.vma.gz >out || echo "exit code $?"
python3 show.py <out
cat bad.vma.gz | platter verify --salvage --output=json - >out || echo "exit code $?"
python3 show.py <out
