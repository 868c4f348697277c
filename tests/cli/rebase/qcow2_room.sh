# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# A name that does not fit, and a backing file below a raw data file, are refused before anything is
# copied: the file is what it was.
long=$(printf 'n%.0s' $(seq 240))
platter create -q -f raw base.raw 1M
qemu-io -f raw -c 'write -P 1 0 1M' base.raw >/dev/null
mkdir "$long"
cp base.raw "$long/$long"
platter create -q -f qcow2 -o cluster_size=512 -b base.raw -F raw small.qcow2
qemu-img create -q -f qcow2 -o data_file=d.bin,data_file_raw=on data.qcow2 1M
sha256sum small.qcow2 data.qcow2 >sums
code_of platter rebase -b "$long/$long" -F raw small.qcow2
code_of platter rebase -u -b "$long/$long" -F raw small.qcow2
code_of platter rebase -b base.raw -F raw data.qcow2
code_of platter rebase -u -b base.raw -F raw data.qcow2
sha256sum --quiet -c sums
platter rebase -b '' small.qcow2
qemu-img check -q small.qcow2
qemu-io -f qcow2 -c 'read -q -P 1 0 1M' small.qcow2
