# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The report: an object, or an array of them; each fault and each hole with its place.
three_disks
archive x.vma -c conf=text -p 4 drive-scsi0=a.raw drive-scsi2=c.raw
platter verify --output=json x.vma
cp x.vma bad.vma
put $((12800 + 100)) '\x55\x55' bad.vma
code_of platter verify --output=json --salvage bad.vma
code_of platter verify --output=json x.vma bad.vma nope.vma | python3 -c 'import json, sys
text = sys.stdin.read()
end = text.rindex("]") + 1
print([(a["filename"], a["whole"], a["fault-count"]) for a in json.loads(text[:end])], text[end:])'
put 100 x x.vma
code_of platter verify --output=json x.vma
