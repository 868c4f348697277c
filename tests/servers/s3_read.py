# SPDX-License-Identifier: MIT
"""What lies in S3 is what lies in a file, in every format; and what is wrong is told."""
import json
import os
import re
import subprocess
import time

import gateway
from peers import MIB, PLATTER, Case, add_case, main, make_content, platter, qemu_img, run, sha256

BUCKET = "reads"
SKEW = os.environ["SKEW"]

# The name of an image, and how it is made of disk.raw.
IMAGES = {
    "disk.qcow2": ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw"],
    "packed.qcow2": ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw"],
    "disk.qcow": ["qemu-img", "convert", "-f", "raw", "-O", "qcow", "disk.raw"],
    "disk.vmdk": ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "disk.raw"],
    "stream.vmdk": ["qemu-img", "convert", "-f", "raw", "-O", "vmdk",
                    "-o", "subformat=streamOptimized", "disk.raw"],
}
PACKERS = {"gz": ["gzip", "-c"], "zst": ["zstd", "-qc"], "xz": ["xz", "-1c"],
           "bz2": ["bzip2", "-c"], "lzo": ["lzop", "-c"]}


def make(name):
    """The image `name`, made of disk.raw."""
    base, dot, packer = name.rpartition(".")
    if dot and packer in PACKERS:
        make(base)
        with open(name, "wb") as f:
            subprocess.run([*PACKERS[packer], base], check=True, stdout=f)
    elif name in IMAGES:
        run(*IMAGES[name], name)
    elif name.endswith(".vma"):
        platter("archive", "create", "-q", name, "-d", "scsi0=disk.raw", "-f", "raw")


def data_of(image, *options):
    """Where an image has data, in as few ranges as can be."""
    ranges = []
    for entry in json.loads(platter("map", "--output=json", *options, image).stdout):
        start, end = entry["start"], entry["start"] + entry["length"]
        if entry["data"] and ranges and ranges[-1][1] == start:
            ranges[-1][1] = end
        elif entry["data"]:
            ranges.append([start, end])
    return ranges


def read(self, name):
    """Digest, map, comparison and copy agree with those of the file."""
    make_content("disk.raw", 3 * MIB + 512, 1)
    make(name)
    key = f"/{BUCKET}/{name}"
    gateway.put_file(key, name)
    fmt = ["-f", "raw"] if name == "disk.raw" else []
    place = f"s3:/{key}"
    self.assertEqual(platter("digest", *fmt, place).stdout.split()[0],
                     platter("digest", "-f", "raw", "disk.raw").stdout.split()[0])
    if name != "disk.raw" and name.rpartition(".")[2] not in PACKERS: # S3 tells of no holes
        self.assertEqual(data_of(place, *fmt), data_of(name, *fmt))
    platter("info", *fmt, place)
    platter("convert", *fmt, "-O", "raw", place, "back.raw")
    self.assertEqual(sha256("back.raw"), sha256("disk.raw"))
    gateway.delete(key)


class Reads(Case):

    @classmethod
    def setUpClass(cls):
        gateway.put(f"/{BUCKET}")

    def refused(self, place, *words, **more):
        done = platter("info", place, code=1, **more)
        for word in words:
            self.assertIn(word, done.stderr)
        for secret in (gateway.SECRET_KEY, gateway.SECRET_KEY[::-1]):
            self.assertNotIn(secret, done.stderr + done.stdout)

    def test_keys_of_objects(self):
        """Names that have to be encoded, as they are sent and as they are written."""
        for number, (key, written) in enumerate({
                "a b+c": "a b+c", "q?x#y": "q%3Fx%23y", "50%": "50%25", "deep/er/x": "deep/er/x",
                "(a)*'!~": "(a)*'!~", "\u00e4,b=&;:@$": "\u00e4,b=&;:@$", "/x//y": "/x//y"}.items()):
            body = bytes([number]) * 1024
            gateway.put(f"/{BUCKET}/{key}", body)
            platter("convert", "-f", "raw", "-O", "raw", f"s3://{BUCKET}/{written}", "got")
            with open("got", "rb") as f:
                self.assertEqual(f.read(), body, key)

    def test_backing_file_beside_it(self):
        make_content("base.raw", 2 * MIB, 2)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        for name in ("base.qcow2", "top.qcow2"):
            gateway.put_file(f"/{BUCKET}/chain/{name}", name)
        place = f"s3://{BUCKET}/chain/top.qcow2"
        done = platter("digest", place)
        self.assertEqual(done.stdout.split()[0],
                         platter("digest", "-f", "raw", "base.raw").stdout.split()[0])

    def test_nothing_there(self):
        gateway.put(f"/{BUCKET}/empty", b"")
        done = platter("info", "--output=json", "-f", "raw", f"s3://{BUCKET}/empty")
        self.assertEqual(json.loads(done.stdout)["virtual-size"], 0)
        self.refused(f"s3://{BUCKET}/nothing", "NoSuchKey", "request tx", f"s3://{BUCKET}/nothing")
        self.refused("s3://not-there/x", "NoSuchBucket")

    def test_who_asks(self):
        place = f"s3://{BUCKET}/mine"
        gateway.put(f"/{BUCKET}/mine", bytes(4096))
        secret = {"AWS_SECRET_ACCESS_KEY": gateway.SECRET_KEY[::-1]}
        self.refused(place, "SignatureDoesNotMatch", env=gateway.without(**secret))
        self.refused(place, "InvalidAccessKeyId", env=gateway.without(AWS_ACCESS_KEY_ID="NOBODY"))
        self.refused(place, "there are no keys for S3",
                     env=gateway.without("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        self.refused(f"{place}?anonymous=on", "AccessDenied", "not for everybody")

    def test_anonymous(self):
        gateway.put(f"/{BUCKET}/public", bytes(4096), x_amz_acl="public-read")
        nobody = gateway.without("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        platter("info", f"s3://{BUCKET}/public?anonymous=on", env=nobody)

    def test_clock(self):
        gateway.put(f"/{BUCKET}/late", bytes(4096))
        for skew, words in (("3600", "ahead of"), ("-3600", "behind")):
            env = gateway.without(LD_PRELOAD=SKEW, SKEW_SECONDS=skew,
                                  ASAN_OPTIONS="verify_asan_link_order=0")
            self.refused(f"s3://{BUCKET}/late", "RequestTimeTooSkewed", words, env=env)
            done = platter("info", f"s3://{BUCKET}/late", code=1, env=env)
            told = int(re.search(r"(\d+) seconds", done.stderr).group(1))
            self.assertLess(abs(told - 3600), 30)

    def test_ways_to_say_where(self):
        """Keys of a place, a profile's files, a source-spec, and the bucket in the host's name."""
        make_content("disk.raw", MIB, 3)
        gateway.put_file(f"/{BUCKET}/disk", "disk.raw")
        digest = platter("digest", "-f", "raw", "disk.raw").stdout.split()[0]
        bare = gateway.without("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

        def check(place, **env):
            done = platter("digest", "-f", "raw", place, env={**bare, **env})
            self.assertEqual(done.stdout.split()[0], digest, place)

        with open("secret", "w") as f:
            f.write(gateway.SECRET_KEY + "\n")
        check(f"s3://{BUCKET}/disk?endpoint={gateway.ENDPOINT}&access_key={gateway.ACCESS_KEY}"
              "&secret_key=file:secret")
        with open("credentials", "w") as f:
            f.write(f"[tests]\naws_access_key_id = {gateway.ACCESS_KEY}\n"
                    f"aws_secret_access_key = {gateway.SECRET_KEY}\n")
        with open("config", "w") as f:
            f.write("[profile tests]\nregion = here\nservices = local\n"
                    f"[services local]\ns3 =\n  endpoint_url = {gateway.ENDPOINT}/\n")
        files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
        check(f"s3://{BUCKET}/disk", AWS_PROFILE="tests", **files)
        check(f"s3://{BUCKET}/disk?profile=tests", AWS_ACCESS_KEY_ID="not",
              AWS_SECRET_ACCESS_KEY="these", **files)
        self.refused(f"s3://{BUCKET}/disk?profile=other", "no profile", env={**bare, **files})
        spec = {"type": "raw", "stream": {"type": "s3",
                                          "url": f"{gateway.ENDPOINT}/{BUCKET}/disk",
                                          "access_key": gateway.ACCESS_KEY,
                                          "secret_key": "env:OF_THE_TEST"}}
        done = platter("digest", "json:" + json.dumps(spec),
                       env={**bare, "OF_THE_TEST": gateway.SECRET_KEY})
        self.assertEqual(done.stdout.split()[0], digest)
        platter("info", f"s3://{BUCKET}/disk?style=host",
                env=gateway.without(AWS_ENDPOINT_URL=os.environ["S3_HOST_ENDPOINT"]))

    def test_changes_meanwhile(self):
        """An object that is replaced while it is read is an error, not a mixture."""
        with open("disk.raw", "wb") as f:
            f.write(os.urandom(80 * MIB)) # more than is read ahead and kept
        gateway.put_file(f"/{BUCKET}/changing", "disk.raw")
        copy = subprocess.Popen([PLATTER, "convert", "-f", "raw", "-O", "raw", "-r", "20M",
                                 f"s3://{BUCKET}/changing", "copy"], text=True,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        time.sleep(0.5)
        self.assertIsNone(copy.poll())
        gateway.put(f"/{BUCKET}/changing", b"less")
        said = copy.communicate(timeout=60)[1]
        self.assertEqual(copy.returncode, 1)
        self.assertIn("changed", said)
        self.assertFalse(os.path.exists("copy"))


for image in ("disk.raw", *IMAGES, "disk.vma", *(f"packed.qcow2.{packer}" for packer in PACKERS)):
    add_case(Reads, f"as a file {image}", read, image)

main()
