# SPDX-License-Identifier: MIT
# The names of files in a descriptor: their encoding, their case, and what they may not lead to.
data 64K data.raw

# disk ENCODING NAME: a flat disk whose descriptor has the name as bytes; printf escapes.
disk() {
    printf '# Disk DescriptorFile\nversion=1\n%sCID=12345678\nparentCID=ffffffff\n' \
        "${1:+encoding=\"$1\"$'\n'}" >disk.vmdk
    printf 'createType="monolithicFlat"\n' >>disk.vmdk
    printf 'RW 128 FLAT "%b" 0\n' "$2" >>disk.vmdk
}
reads() {
    rm -f out.raw
    if platter convert -q -O raw disk.vmdk out.raw; then
        cmp out.raw data.raw && echo "${1:-fine}"
    fi
}

echo "== encodings"
while read -r encoding bytes name; do
    cp data.raw "$name"
    disk "$encoding" "$bytes"
    reads "$encoding"
    platter info disk.vmdk | grep -c " filename: $name\$"
    rm "$name"
done <<'END'
UTF-8 caf\xc3\xa9.vmdk café.vmdk
windows-1252 caf\xe9.vmdk café.vmdk
Shift_JIS \x83\x66\x83\x42\x83\x58\x83\x4e.vmdk ディスク.vmdk
GBK \xb4\xc5\xc5\xcc.vmdk 磁盘.vmdk
Big5 \xba\xcf\xba\xd0.vmdk 磁碟.vmdk
END
echo "== the bytes themselves, where there is no file of the name"
raw=$(printf 'caf\351.vmdk')
cp data.raw "$raw"
disk windows-1252 'caf\xe9.vmdk'
reads
disk '' 'caf\xe9.vmdk'
reads
rm "$raw"
code_of reads
echo "== an encoding that nobody knows"
cp data.raw plain.vmdk
disk klingon plain.vmdk
reads
disk klingon 'caf\xe9.vmdk'
reads

echo "== small and capital letters"
disk '' 'PLAIN.VMDK'
reads
cp data.raw Plain.vmdk
reads
cp data.raw PLAIN.VMDK
echo other >plain.vmdk
reads

echo "== what they may not lead to"
mkdir folder sub
mkfifo pipe
cp data.raw sub/in.vmdk
cp data.raw ../vmdk_names.outside
ln -s ../vmdk_names.outside link
for name in sub/in.vmdk ./sub/../plain.vmdk "$PWD/sub/in.vmdk"; do
    disk '' "$name"
    reads
done 2>&1 | sed "s|$PWD|HERE|"
for name in ../vmdk_names.outside /etc/passwd link folder pipe disk.vmdk nbd:host json:{} \
    'a\x01b' /dev/zero '\\\\.\\PhysicalDrive0'; do
    disk '' "$name"
    reads
done
rm ../vmdk_names.outside
for type in VMFSRDM VMFSRAW NEWTYPE; do
    disk '' plain.vmdk
    sed -i "s/FLAT/$type/" disk.vmdk
    reads
done
