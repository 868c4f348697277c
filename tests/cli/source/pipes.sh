# What can only be read front to back: more than the window holds, and less.
python3 - <<'P'
import random
r = random.Random(5)
with open('a.raw', 'wb') as f:
    for i in range(44):
        f.write(r.randbytes(1 << 20) if i % 4 else bytes(1 << 20))
    f.write(b'end' * 100)
P
sum=$(platter digest -f raw a.raw | cut -d' ' -f1)
same_sum() {
    [ "$(cut -d' ' -f1)" = "$sum" ] && echo "the same: $1"
}
cat a.raw | platter digest -f raw - | same_sum "digest -"
cat a.raw | platter digest --algorithm=sha256 -f raw - | cut -d' ' -f1 | cmp - <(sha256sum a.raw | cut -d' ' -f1)
mkfifo fifo
cat a.raw >fifo &
platter convert -f raw -O raw fifo b.raw
cmp a.raw b.raw
cat a.raw | platter convert -f raw -O qcow2 -m 64 - b.qcow2
qemu-img check b.qcow2 | head -1
platter compare -q -f raw a.raw b.qcow2
cat a.raw | platter convert -f raw -O raw - - | cmp - a.raw
gzip -1 <a.raw | platter convert -q -O qcow2 - c.qcow2
platter compare -q -f raw a.raw c.qcow2
cat a.raw | platter compare -f raw - a.raw
cat a.raw | platter compare -f raw a.raw -
head -c 41M a.raw | platter compare -q -f raw - a.raw || echo "shorter: $?"
cat a.raw a.raw | platter compare -q -f raw a.raw - || echo "longer: $?"
platter digest -f raw - <a.raw | same_sum "a file on standard input"
echo "--- targets that are there"
truncate -s 50M old.raw
cat a.raw | platter convert -n -f raw -O raw - old.raw
cmp -n "$(stat -c %s a.raw)" a.raw old.raw
truncate -s 30M old.raw
code_of platter convert -n -f raw -O raw - old.raw < <(cat a.raw)
echo "--- formats that jump about: small ones do, larger ones by a copy"
platter create -q -f qcow2 small.qcow2 64M
cat small.qcow2 | platter info - | head -2
code_of platter info - < <(cat b.qcow2)
cat b.qcow2 | platter digest --spool . - | cut -d' ' -f1 | cmp - <(platter digest b.qcow2 | cut -d' ' -f1)
cat a.raw | platter convert -f raw -O vmdk --spool . - d.vmdk
platter compare -q -f raw a.raw d.vmdk
echo "--- refused"
code_of platter digest -f raw --place offset=512 - < <(cat a.raw)
code_of platter digest -f raw --place offset=512,length=512 /dev/stdin < <(cat a.raw)
platter digest -f raw --place offset=1M,length=5 - <a.raw | cut -d' ' -f1 | cmp - <(dd if=a.raw bs=1 skip=1M count=5 status=none | platter digest -f raw - | cut -d' ' -f1)
code_of platter convert -f raw -O vmdk - e.vmdk < <(cat a.raw)
code_of platter info -f raw - < <(cat a.raw)
code_of platter map -f raw - < <(cat a.raw)
code_of platter convert -f raw -O qcow2 - a.raw e.qcow2 < <(cat a.raw)
code_of platter compare -s -f raw - a.raw < <(cat a.raw)
code_of platter commit - < <(cat a.raw)
left_here
