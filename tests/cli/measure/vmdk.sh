# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What all files of an image come to, and nothing but the text of a descriptor over that. Compressed
# ones are measured as if nothing shrank.
value() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
sum() { stat -c %s disk* | awk '{ n += $1 } END { printf "%.0f\n", n }'; }
data 3M a.raw
truncate -s 5G a.raw
for kind in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized vmfs; do
    options="-O vmdk -o subformat=$kind"
    for size in 0 512 100M 5G; do
        # shellcheck disable=SC2086
        need=$(platter measure --output=json $options --size $size | value required)
        platter create -q -f vmdk -o subformat=$kind disk.vmdk $size
        echo "$kind $size: $((need - $(sum) < 1200 && need >= $(sum)))"
        rm disk*
    done
    # shellcheck disable=SC2086
    need=$(platter measure -f raw --output=json $options a.raw | value required)
    # shellcheck disable=SC2086
    platter convert -f raw $options a.raw disk.vmdk
    limit=1200
    if [ $kind = streamOptimized ]; then limit=130000; fi
    echo "$kind with data: $((need - $(sum) < limit && need >= $(sum)))"
    rm disk*
done
platter measure -O vmdk --size 5G
platter measure -O vmdk -o subformat=twoGbMaxExtentSparse --size 5G
platter measure -O vmdk -o subformat=vmfs --size 5G
