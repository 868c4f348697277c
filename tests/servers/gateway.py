# SPDX-License-Identifier: MIT
"""The S3 gateway as the tests see it past platter: requests signed by nothing of ours.

with-ceph says where it is. A bucket of a test is made and emptied here.
"""
import datetime
import hashlib
import hmac
import http.client
import os
import re
import urllib.parse

ENDPOINT = os.environ["S3_ENDPOINT"]
ACCESS_KEY = os.environ["S3_ACCESS_KEY"]
SECRET_KEY = os.environ["S3_SECRET_KEY"]
REGION = os.environ["S3_REGION"]

# What the programs that are tested find in their environment.
os.environ.update({"AWS_ENDPOINT_URL": ENDPOINT, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                   "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_CONFIG_FILE": "/dev/null",
                   "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})


class Refused(AssertionError):
    """The gateway answered with an error."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:500]}")
        self.status = status


def signature(method, path, query, headers, date):
    """Version 4, with all headers signed."""
    scope = f"{date[:8]}/{REGION}/s3/aws4_request"
    names = ";".join(sorted(headers))
    request = "\n".join([method, path, query, *(f"{k}:{headers[k]}" for k in sorted(headers)), "",
                         names, headers["x-amz-content-sha256"]])
    what = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (*scope.split("/"), what):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return (f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, "
            f"Signature={key.hex()}")


def request(method, path, query="", body=b"", **more):
    """The answer's body and headers. `more`: headers, with _ for -."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    host = urllib.parse.urlsplit(ENDPOINT).netloc
    path = urllib.parse.quote(path, safe="/-._~")
    headers = {"host": host, "x-amz-date": date,
               "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
               **{k.replace("_", "-"): v for k, v in more.items()}}
    headers["authorization"] = signature(method, path, query, headers, date)
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, path + (f"?{query}" if query else ""), body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise Refused(answer.status, said)
        return said, answer.headers
    finally:
        connection.close()


def put(path, body=b"", **more):
    request("PUT", path, body=body, **more)


def get(path):
    return request("GET", path)[0]


def delete(path):
    request("DELETE", path)


def listed(bucket, query, tag):
    """What stands in <tag> of a listing."""
    said = request("GET", f"/{bucket}", query)[0].decode()
    return re.findall(f"<{tag}>([^<]*)</{tag}>", said)


def without(*names, **more):
    """The environment without some of its variables, and with others."""
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **more}


def parts(bucket, key):
    """The numbers of the parts that are there of uploads of a key."""
    return [number for upload in uploads(bucket)
            for number in listed(f"{bucket}/{key}", f"uploadId={upload}", "PartNumber")]


def put_file(path, name):
    with open(name, "rb") as f:
        put(path, f.read())


def abort(bucket, key):
    """Ends all uploads of a key that were begun."""
    for upload in uploads(bucket):
        request("DELETE", f"/{bucket}/{key}", f"uploadId={upload}")


def keys(bucket):
    return listed(bucket, "", "Key")


def uploads(bucket):
    """The multipart uploads that were begun, and neither completed nor aborted."""
    return listed(bucket, "uploads=", "UploadId")
