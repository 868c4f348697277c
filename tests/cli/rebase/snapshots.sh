# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What only the disk as it is now keeps is said before an image with snapshots is rebased or committed.
platter create -q -f qcow2 base.qcow2 1M
platter create -q -f qcow2 other.qcow2 1M
platter create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2
platter rebase -b other.qcow2 -F qcow2 a.qcow2
platter snapshot -c one a.qcow2
platter rebase -b base.qcow2 -F qcow2 a.qcow2
platter rebase -u -b other.qcow2 -F qcow2 a.qcow2
platter snapshot -c two a.qcow2
platter rebase -q -b base.qcow2 -F qcow2 a.qcow2
platter commit a.qcow2
platter commit -q a.qcow2
