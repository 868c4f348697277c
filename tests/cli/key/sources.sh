# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Where keys come from, and what is done with encrypted images: converted to plain ones, to another key, compared, made
# the base of others.
printf 'one' >one.key
printf '\0\xff\n' >two.key
printf '  AP8K\n' >two.base64
data 200K part
{ cat part && head -c 300K /dev/zero && cat part; } >a.raw
truncate -s 1M a.raw
luks=encrypt.format=luks,encrypt.iter-time=1
platter convert -f raw -O qcow2 -o $luks --new-key-file one.key a.raw one.qcow2
platter compare --key-file one.key -f qcow2 -F raw one.qcow2 a.raw
KEY=one platter compare --key-env KEY -f qcow2 -F raw one.qcow2 a.raw
platter convert --key-file one.key --new-key-file two.key -O qcow2 -o $luks one.qcow2 two.qcow2
platter compare --object secret,id=s,file=two.base64,format=base64 -F raw two.qcow2 a.raw
platter compare --key-file one.key --key-file two.key one.qcow2 two.qcow2
platter compare --image-opts --object secret,id=a,file=one.key --object secret,id=b,file=two.key \
    driver=qcow2,file.filename=one.qcow2,encrypt.key-secret=a \
    driver=qcow2,encrypt.format=luks,encrypt.key-secret=b,file.driver=file,file.filename=two.qcow2
code_of platter compare --image-opts --object secret,id=a,file=one.key \
    driver=qcow2,file.filename=one.qcow2,encrypt.key-secret=a \
    driver=qcow2,file.filename=two.qcow2,encrypt.key-secret=a
platter convert --key-file two.key -O raw two.qcow2 b.raw
cmp a.raw b.raw
# The key of the base is not needed to make what lies over it.
platter create -q -f qcow2 -b one.qcow2 -F qcow2 -o $luks --new-key-file two.key over.qcow2
platter compare --key-file one.key --key-file two.key -F raw over.qcow2 a.raw
code_of platter compare --key-file two.key -F raw over.qcow2 a.raw
# A volume has no holes: zeros are written, and nothing that is plain stays in the file.
platter convert -f raw -O luks -o iter-time=1 --new-key-file one.key a.raw a.luks
platter compare --key-file one.key -F raw a.luks a.raw
python3 -c 'import sys
plain = open("part", "rb").read(64)
print(*[plain in open(name, "rb").read() for name in sys.argv[1:]])' a.raw a.luks one.qcow2 two.qcow2
# No place is told of what is encrypted.
platter map --key-file one.key --output=json one.qcow2
platter map --key-file one.key --output=json a.luks
platter convert --key-file one.key -n -f raw -O luks part a.luks
platter convert --key-file one.key -f luks -O raw a.luks c.raw
cmp -n 204800 c.raw part
platter measure -O luks --size 10M
platter measure -O qcow2 -o encrypt.format=luks --size 10M
for image in one.qcow2 a.luks; do
    same info --output=json $image
    same info $image
done
