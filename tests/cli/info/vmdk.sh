# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# All that qemu-img tells, and more behind it.
for subformat in monolithicSparse streamOptimized monolithicFlat; do
    qemu-img create -q -f vmdk -o subformat=$subformat $subformat.vmdk 10M
    echo "$subformat"
    qemu-img info $subformat.vmdk >theirs
    platter info $subformat.vmdk >ours
    { diff theirs ours || [ $? = 1 ]; } | sed -n '/^[<>]/p'
    qemu-img info --output=json $subformat.vmdk >theirs
    platter info --output=json $subformat.vmdk >ours
    python3 - <<'END'
import json

def tell(theirs, ours, where):
    if isinstance(theirs, dict):
        for key in theirs:
            tell(theirs[key], ours.get(key), f"{where}/{key}")
        print(f"more in {where}/:", *[key for key in ours if key not in theirs])
    elif isinstance(theirs, list):
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            tell(a, b, f"{where}/{i}")
    elif theirs != ours:
        print(f"DIFFERENT {where}: {theirs}, ours {ours}")

tell(json.load(open("theirs")), json.load(open("ours")), "")
END
done
