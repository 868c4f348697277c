# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 -o lazy_refcounts=on a.qcow2 10M
(exec 2>/dev/null; qemu-io -c 'write 0 1M' -c abort a.qcow2 >/dev/null 2>&1 || true) 2>/dev/null
same info -U a.qcow2
same info -U --output=json a.qcow2
