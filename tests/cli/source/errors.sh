# A sentence names the key and shows no value.
s=hunter2
for doc in '{"type":"raw"}' '{"type":"raw","stream":{"type":"file","filepath":"hunter2"}}' \
    '{"type":"raw","stream":{"type":"http","url":"http://x/","password":["hunter2",5]}}' \
    '{"type":"qcow","stream":{"type":"s3","url":"http://h/b/k","secret_key":7,"access_key":"hunter2"}}' \
    '{"type":"native","pool_name":"p","image_name":"i","stream":{}}' \
    '{"type":"raw","password":"hunter2' '{"driver":"raw","file":{"driver":"ssh"}}' '{}@x'; do
    code_of platter info "$doc" 2>&1 | tee -a all
done
count $s <all
data 64K a.raw
echo "--- nor of one that stands where none can"
platter convert -f raw -O qcow2 a.raw a.qcow2
archive a.vma disk=a.raw
doc="{\"type\":\"qcow2\",\"stream\":{\"type\":\"file\",\"file_path\":\"a.qcow2\"}}"
vma="{\"type\":\"vma\",\"stream\":{\"type\":\"file\",\"file_path\":\"a.vma\"}}"
code_of platter convert -f raw -O qcow2 a.raw "$doc"
code_of platter dd -f raw -O raw if=a.raw of="$doc"
code_of platter create -f qcow2 "$doc" 1M
code_of platter create -f qcow2 -b "$doc" -F qcow2 b.qcow2
code_of platter key list "$doc"
code_of platter archive create "$doc" -d disk=a.raw
code_of platter archive index "$doc"
code_of platter archive index "$vma"
code_of platter vma config "$vma"
platter verify -q "$vma"
echo "--- what the file is, and what was said of it"
code_of platter info '{"type":"qcow","stream":{"type":"file","file_path":"a.raw"}}'
code_of platter info -f vmdk '{"type":"qcow","stream":{"type":"file","file_path":"a.raw"}}'
code_of platter extract '{"type":"qcow2","stream":{"type":"file","file_path":"a.raw"}}' -o out
echo "--- keys beside a name"
code_of platter info -f raw --place ofset=5 a.raw
code_of platter info -f raw --place offset=1M a.raw
platter info -f raw --place ca_file=x,offset=512 a.raw | head -3
echo "--- no image names such things"
qemu-img create -q -f qcow2 -u -b '{"type":"raw","stream":{"type":"file","file_path":"a.raw"}}' -F raw b.qcow2 1M
code_of platter digest b.qcow2
qemu-img create -q -f qcow2 -u -b ./- -F raw c.qcow2 1M
code_of platter digest c.qcow2 <a.raw
code_of platter create -f qcow2 -b '{"type":"raw","stream":{"type":"file","file_path":"a.raw"}}' -F raw d.qcow2
