# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2086
# What is told is enough for what convert then makes.
data 3M a.raw
truncate -s 40M a.raw
for args in '-O qcow2' '-O qcow2 -o cluster_size=4k' '-O raw' '-O vmdk'; do
    need=$(platter measure -f raw --output=json $args a.raw | python3 -c 'import json, sys; print(json.load(sys.stdin)["required"])')
    platter convert -f raw $args a.raw b.img
    [ "$(stat -c %s b.img)" -le "$need" ] && echo "enough: $args"
done
