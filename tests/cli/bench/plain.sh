# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The sentences of qemu-img, but for the time.
data 1M a.raw
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
for how in "" "-c 100 -d 4" "-c 3 -d 3 -s 64k -o 512k -S 100k" "-c 5 -d 1 -w --flush-interval=2" \
    "-c 20 -d 7 -w --flush-interval=8 --no-drain --pattern=7" "-n -i threads -t none -c 0" "-q -c 9" "-q -c 20 -w"; do
    # shellcheck disable=SC2086
    platter bench -f qcow2 $how a.qcow2 | sed 's/[0-9.]* seconds/TIME seconds/'
done
qemu-img check -q a.qcow2
