# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# An image may not name the format of its backing file: it is guessed only if that is asked for.
qemu-img create -q -f qcow2 base.qcow2 10M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
python3 - <<'END'
image = bytearray(open("top.qcow2", "rb").read())
at = image.index(b"\xe2\x79\x2a\xca")
image[at:at + 16] = bytes(16)
open("top.qcow2", "wb").write(image)
END
same info top.qcow2
same info --output=json top.qcow2
code_of platter info --backing-chain top.qcow2
platter info --backing-chain --probe-backing top.qcow2 | grep '^image'
