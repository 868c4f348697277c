# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Exit codes as qemu-img has them.
qemu-img create -q -f raw a.raw 1M
same check -f raw a.raw
same check a.raw
same check -r all -f raw a.raw
same check missing.vmdk
same check
same check a.raw b.raw
same check -r some a.raw
same check -r
same check --output=xml a.raw
same check -f floppy a.raw
code_of platter check --image-opts a.raw
code_of platter check --view=one a.raw
