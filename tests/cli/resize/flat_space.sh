# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# New space of flat files: set aside or written if that is asked for, and zeros whatever stood there.
for subformat in monolithicFlat twoGbMaxExtentFlat; do
    rm -f vm*
    platter create -q -f vmdk -o subformat=$subformat vm.vmdk 1M
    extent=$(ls vm-*)
    head -c 3M /dev/zero | tr '\0' x >>"$extent" # behind the end of the disk
    platter resize -q vm.vmdk 2M
    platter resize -q --preallocation=full vm.vmdk 6M
    platter resize -q --preallocation=falloc vm.vmdk 8M
    code_of platter resize --preallocation=metadata vm.vmdk 9M
    cmp -n 8388608 "$extent" /dev/zero && stat -c %s "$extent"
    [ "$(stat -c %b "$extent")" -ge 12288 ] && echo takes its room
    qemu-io -r -f vmdk -c 'read -P 0 0 8M' vm.vmdk | grep -c ^read
done
