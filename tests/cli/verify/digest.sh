# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Damage of data is seen where there are digests of it: beside the archive, in it, or named.
data 33M a.raw 1
truncate -s 20M b.raw
data 70K end 2
dd if=end of=b.raw bs=1K seek=20000 conv=notrunc status=none
cat >digests.py <<'END'
import base64, json, subprocess, sys

def digest(name, path):
    out = subprocess.run(["platter", "digest", "--nodes", "--output=json", path],
                         check=True, stdout=subprocess.PIPE).stdout
    d = json.loads(out)[0]
    nodes = b"".join(bytes.fromhex(n["digest"]) for n in d["nodes"])
    return {"name": name, "size": d["virtual-size"], "digest": d["digest"],
            "nodes": base64.b64encode(nodes).decode()}

print(json.dumps({"platter-digest": 1,
                  "disks": [digest(*disk.split("=")) for disk in sys.argv[1:]]}), end="")
END
python3 digests.py drive-scsi0=a.raw drive-scsi1=b.raw >x.vma.platter.digest
archive x.vma -s 1 drive-scsi0=a.raw drive-scsi1=b.raw
platter verify x.vma
cp x.vma.platter.digest other
echo "--- one bit of data"
put 5000000 '\x00' x.vma
code_of platter verify x.vma
code_of platter verify -q --digest other - <x.vma
mv x.vma.platter.digest aside
code_of platter verify x.vma | tail -1
echo "--- in the archive, and in parts"
text=$(cat other)
archive y.vma -s 2 -c platter.digest.1="${text:300}" -c platter.digest="${text:0:300}" \
    drive-scsi0=a.raw drive-scsi1=b.raw
platter verify y.vma | tail -1
gzip -1 -c y.vma | platter verify -m 1 - | tail -1
put 5000000 '\x00' y.vma
code_of platter verify y.vma
echo "--- of another disk, of fewer, damaged, not there"
python3 digests.py drive-scsi0=b.raw >z.digest
code_of platter verify --digest z.digest x.vma
cp other z.digest
put 200 'xx' z.digest
code_of platter verify --digest z.digest x.vma
cp z.digest x.vma.platter.digest
code_of platter verify x.vma
code_of platter verify --digest nope x.vma
