# A raw disk with older states: views, and snapshots of a copy.
data 2M now.raw 1
cp now.raw tue.raw
put 100000 changed tue.raw
cp tue.raw mon.raw
truncate -s 1500K mon.raw
put 5 older mon.raw
state() {
    printf '{"type":"raw","name":"%s","stream":{"type":"file","file_path":"%s.raw"}}' "$1" "$1"
}
spec="{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"now.raw\"},\"snapshots\":[$(state mon),$(state tue)]}"
echo "$spec" >spec.json
platter snapshot -l json:spec.json
platter info --output=json json:spec.json | count '"name"'
for v in mon tue; do
    platter compare -f raw json:spec.json@$v $v.raw
    platter convert -O raw -l $v "$spec" out.raw && cmp out.raw $v.raw
done
platter convert --snapshots -O qcow2 json:spec.json copy.qcow2
qemu-img check copy.qcow2 | head -1
for v in mon tue; do
    platter compare -F raw copy.qcow2@$v $v.raw
done
platter compare -F raw copy.qcow2 now.raw
echo "--- what two share is stored once"
platter info --output=json copy.qcow2 | python3 -c 'import json, sys; print(json.load(sys.stdin)["actual-size"] < 4 << 20)'
echo "--- nothing of it is written over"
code_of platter convert -f raw -O raw json:spec.json tue.raw
code_of platter convert -n -f raw -O raw now.raw json:spec.json
code_of platter info json:spec.json@wed
code_of platter snapshot -c x json:spec.json
rm mon.raw
code_of platter info json:spec.json
