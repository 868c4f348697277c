# SPDX-License-Identifier: MIT
# shellcheck shell=bash
three_disks
code_of platter verify
code_of platter verify --uuid 1 x
code_of platter verify --digest a b c
code_of platter verify nope.vma
code_of platter verify a.raw
code_of platter verify .
code_of platter verify --memory 1M a.raw
