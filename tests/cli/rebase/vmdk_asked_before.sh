# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What a descriptor cannot hold is known before any data is copied: not a byte changes.

# kept COMMAND...: fails, and leaves all files as they were.
kept() {
    sha256sum -- *.vmdk >.before
    code_of "$@"
    sha256sum --quiet -c .before && echo "nothing changed"
}

platter create -q -f vmdk base.vmdk 1M
data 1M other.raw
platter convert -f raw -O vmdk other.raw snow☃.vmdk
cp snow☃.vmdk 'quo"te.vmdk'
far=$(printf './%.0s' {1..300})snow☃.vmdk

echo "== a quote"
platter create -q -f vmdk -b base.vmdk -F vmdk child.vmdk
kept platter rebase -b 'quo"te.vmdk' -F vmdk child.vmdk

echo "== no room"
python3 - <<'EOF'
import struct
with open("child.vmdk", "r+b") as f:
    f.seek(36)
    f.write(struct.pack("<Q", 1))
    f.seek(2 * 512)
    f.write(b"\xff\x00" * 256)
EOF
kept platter rebase -b "$far" -F vmdk child.vmdk
rm child.vmdk

echo "== a character that the encoding has not"
platter create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b base.vmdk -F vmdk child.vmdk
sed -i 's/^version=1/&\nencoding="windows-1252"/' child.vmdk
kept platter rebase -b snow☃.vmdk -F vmdk child.vmdk

echo "== with another name all is copied"
platter convert -O raw child.vmdk before.raw
mv snow☃.vmdk snow.vmdk
platter rebase -b snow.vmdk -F vmdk child.vmdk
platter compare -F raw child.vmdk before.raw
