# Every format, by a source-spec and by the name of its file: the same disk.
spec() {
    printf '{"type":"%s","stream":{"type":"file","file_path":"%s"}%s}' "$1" "$2" "${3-}"
}
data 3M a.raw
truncate -s 5M a.raw
platter convert -f raw -O qcow2 a.raw a.qcow2
platter convert -c -f raw -O qcow2 -o compression_type=zstd a.raw packed.qcow2
platter convert -f raw -O qcow a.raw a.qcow
platter convert -f raw -O vmdk a.raw a.vmdk
platter convert -f raw -O vmdk -o subformat=streamOptimized a.raw b.vmdk
platter create -q -f qcow2 -b a.raw -F raw over.qcow2
archive a.vma disk=a.raw
gzip -k a.raw
zstd -q a.qcow2
sum=$(platter digest -f raw a.raw | cut -d' ' -f1)
for s in "$(spec raw a.raw)" "$(spec qcow a.qcow2)" "$(spec qcow packed.qcow2)" "$(spec qcow a.qcow)" "$(spec qcow2 a.qcow2)" \
    "$(spec vmdk a.vmdk)" "$(spec vmdk b.vmdk)" "$(spec qcow over.qcow2)" "$(spec vma a.vma ',"device":"disk"')" \
    "$(spec raw a.raw.gz ',"compressed":true')" "$(spec qcow a.qcow2.zst)" \
    '{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'; do
    [ "$(platter digest "$s" | cut -d' ' -f1)" = "$sum" ] && echo "same: $s"
done
echo "--- in a file, on standard input, as any operand"
spec qcow a.qcow2 >spec.json
platter digest json:spec.json "json:$(spec raw a.raw)" | cut -d' ' -f1 | sort -u | count .
platter info --output=json json:- <spec.json | count '"filename": "a.qcow2"'
platter compare "$(spec raw a.raw)" json:spec.json
platter convert -O raw json:spec.json b.raw
cmp a.raw b.raw
platter extract "$(spec vma a.vma)" -o out
cmp a.raw out/*
platter verify -q "$(spec vma a.vma)"
platter map --output=json "$(spec qcow a.qcow2)" | cmp - <(platter map --output=json a.qcow2)
platter check -q json:spec.json
echo "--- a part of a file"
platter digest "{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a.raw\",\"offset\":\"1M\",\"length\":65536}}" | cut -c1-16
dd if=a.raw bs=64K skip=16 count=1 status=none | platter digest -q -f raw - | cut -c1-16
platter digest -q -f raw --place offset=1M,length=65536 a.raw | cut -c1-16
