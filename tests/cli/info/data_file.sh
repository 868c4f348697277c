# SPDX-License-Identifier: MIT
# shellcheck shell=bash
qemu-img create -q -f qcow2 -o data_file=a.data,data_file_raw=on a.qcow2 10M
same info a.qcow2
same info --output=json a.qcow2
