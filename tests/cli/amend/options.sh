# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What is refused, as qemu-img refuses it, and leaves the image as it was.
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
qemu-img create -q -f qcow2 -o extended_l2=on extended.qcow2 1M
qemu-img create -q -f qcow2 -o data_file=d.bin,data_file_raw=on data.qcow2 1M
qemu-img create -q -f qcow2 -o compression_type=zstd zstd.qcow2 1M
qemu-img create -q -f qcow2 marked.qcow2 1M
qemu-img bitmap --add marked.qcow2 one
data 1M some.raw
qemu-img convert -c -O qcow2 -o compression_type=zstd some.raw packed.qcow2
sha256sum ./*.qcow2 >sums
same amend a.qcow2
same amend -o foo=1 a.qcow2
same amend -o cluster_size=4k a.qcow2
same amend -o refcount_bits=3 a.qcow2
same amend -o refcount_bits=128 a.qcow2
same amend -o compat=0.10,refcount_bits=8 a.qcow2
same amend -o compat=0.10,lazy_refcounts=on a.qcow2
same amend -o refcount_bits=8 old.qcow2
same amend -o lazy_refcounts=on old.qcow2
same amend -o backing_file=x a.qcow2
same amend -o backing_fmt=raw a.qcow2
same amend -o data_file=x a.qcow2
same amend -o data_file_raw=on a.qcow2
same amend -o compat=0.10 extended.qcow2
same amend -o compat=0.10 data.qcow2
same amend -f raw -o size=2M some.raw
same amend -o size=512k nope.qcow2
platter amend -o size=512k a.qcow2 || echo no
platter amend -o compat=0.10 marked.qcow2 || echo no
platter amend -o data_file= data.qcow2 || echo no
sha256sum --quiet -c sums
platter amend -f qcow2 -o help
platter amend -o help a.qcow2 | head -1
same amend -q -o size=2M a.qcow2
same amend -q -o compat=0.10 zstd.qcow2
qemu-img info zstd.qcow2 | grep compat
qemu-img check -q zstd.qcow2
platter amend -o data_file=e.bin data.qcow2
mv d.bin e.bin
platter amend -o data_file_raw=off data.qcow2
qemu-img check -q data.qcow2
qemu-img info data.qcow2 | grep 'data file'
