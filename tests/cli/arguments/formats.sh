# SPDX-License-Identifier: MIT
# shellcheck shell=bash
platter formats
platter formats --output=json | python3 -c '
import json, sys
for f in json.load(sys.stdin):
    print(f["name"], *(o["name"] for o in f["options"]))'
