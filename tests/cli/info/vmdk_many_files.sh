# SPDX-License-Identifier: MIT
# Files that cannot be opened because too many are open already are not said to be missing.
printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 parentCID=ffffffff \
    'createType="twoGbMaxExtentFlat"' >disk.vmdk
for i in {1..40}; do
    truncate -s 512 "piece-$i"
    echo "RW 1 FLAT \"Piece-$i\" 0" >>disk.vmdk
done
platter info disk.vmdk | grep '^virtual size'
(
    ulimit -n 24
    code_of platter info disk.vmdk 2>&1 | sed 's/[Pp]iece-[0-9]*/piece-N/'
)
