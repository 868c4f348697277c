# SPDX-License-Identifier: MIT
"""What servers of S3 answer that the one of `make test-servers` never does: other regions, redirects,
answers that are lost or come too late. A server of our own gives them; what it keeps is real."""
import itertools
import os
import re
import signal
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from peers import MIB, PLATTER, Case, main, platter

PART = 5 * MIB


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, more="", **headers):
        self.answer(status, f"<Error><Code>{code}</Code>{more}<RequestId>17</RequestId></Error>"
                    .encode(), **headers)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        self.server.asked.append((self.command, path, query, dict(self.headers)))
        rule = self.server.rule
        if not (rule and rule(self, path, query, body)):
            self.keep(path, dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def keep(self, path, query, body):
        """As a server does that works."""
        objects, parts = self.server.objects, self.server.parts
        if self.command == "POST" and "uploads" in query:
            parts[path] = {}
            self.answer(200, b"<R><UploadId>one &amp; only</UploadId></R>")
        elif self.command == "PUT" and "partNumber" in query:
            parts[path][int(query["partNumber"])] = body
            self.answer(200, ETag='"p"')
        elif self.command == "POST":
            if path not in parts:
                return self.error(404, "NoSuchUpload")
            numbers = [int(n) for n in re.findall(rb"<PartNumber>(\d+)<", body)]
            assert numbers == sorted(parts[path]), numbers
            objects[path] = (b"".join(parts[path][n] for n in numbers), f'"x-{len(numbers)}"',
                             next(self.server.dates))
            del parts[path]
            self.answer(200, b"<CompleteMultipartUploadResult/>")
        elif self.command == "DELETE":
            (parts if "uploadId" in query else objects).pop(path, None)
            self.answer(204)
        elif self.command == "PUT":
            objects[path] = (body, '"x"', next(self.server.dates))
            self.answer(200, ETag='"x"')
        elif "uploadId" in query:
            if path in parts:
                self.answer(200)
            else:
                self.error(404, "NoSuchUpload")
        else:
            self.give(*objects.get(path, ()))

    def give(self, content=None, etag=None, date=0):
        if content is None:
            return self.error(404, "NoSuchKey")
        date = f"Thu, 01 Jan 1970 00:00:{date:02} GMT"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, content, ETag=etag, Last_Modified=date)
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        if first > last:
            return self.error(416, "InvalidRange")
        self.answer(206, content[first:last + 1], ETag=etag, Last_Modified=date,
                    Content_Range=f"bytes {first}-{last}/{len(content)}")


def serve(objects):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # who is interrupted hangs up
    server.asked, server.rule = [], None
    server.objects, server.parts = objects, {}
    server.dates = itertools.count()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class Answers(Case):

    def setUp(self):
        super().setUp()
        self.server = serve({})
        os.environ.update({
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_port}",
            "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "SECRET",
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
        with open("disk.raw", "wb") as f:
            f.write(os.urandom(2 * PART + 12345))

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        super().tearDown()

    def upload(self, code=0, name="/b/k"):
        return platter("convert", "-f", "raw", "-O", "raw", "disk.raw",
                       f"s3:/{name}?part_size={PART}", code=code)

    def check_there(self, name="/b/k"):
        with open("disk.raw", "rb") as f:
            self.assertEqual(self.server.objects[name][0], f.read())
        self.assertEqual(self.server.parts, {})

    def check_nothing(self, name="/b/k"):
        self.assertNotIn(name, self.server.objects)
        self.assertEqual(self.server.parts, {})

    def test_as_it_should_be(self):
        self.upload()
        self.check_there()
        platter("compare", "-f", "raw", "-F", "raw", "disk.raw", "s3://b/k")
        for _, _, _, headers in self.server.asked:
            signed = re.search("SignedHeaders=([^,]*)", headers["Authorization"])[1]
            self.assertEqual(signed, "host;x-amz-content-sha256;x-amz-date")
            self.assertNotIn("SECRET", str(headers))

    def test_token(self):
        os.environ["AWS_SESSION_TOKEN"] = "for a while"
        try:
            self.upload()
        finally:
            del os.environ["AWS_SESSION_TOKEN"]
        for _, _, _, headers in self.server.asked:
            self.assertEqual(headers["x-amz-security-token"], "for a while")
            self.assertIn(";x-amz-security-token", headers["Authorization"])

    def test_other_region(self):
        """Whichever way the server tells which it is: the rest goes there."""
        def header(h):
            h.error(301, "PermanentRedirect", x_amz_bucket_region="eu-9")

        def malformed(h):
            h.error(400, "AuthorizationHeaderMalformed", "<Region>eu-9</Region>")

        def redirect(h):
            h.error(307, "TemporaryRedirect", x_amz_bucket_region="eu-9",
                    Location="http://127.0.0.1:1/b/k")

        for way in (header, malformed, redirect):
            def rule(h, *_, way=way):
                if "/eu-9/s3/" in h.headers["Authorization"]:
                    return False
                way(h)
                return True
            self.server.rule = rule
            self.upload()
            self.check_there()
            self.server.asked.clear()
            platter("info", "s3://b/k")
            regions = ["/eu-9/" in headers["Authorization"]
                       for _, _, _, headers in self.server.asked]
            self.assertEqual(regions, [False] + [True] * (len(regions) - 1), regions)
            self.server.objects.clear()
        # One that contradicts itself is asked again twice, not for ever.
        regions = iter(f"eu-{n}" for n in range(100))
        self.server.rule = lambda h, *_: h.error(301, "PermanentRedirect",
                                                 x_amz_bucket_region=next(regions)) or True
        self.server.asked.clear()
        done = platter("info", "s3://b/k", code=1)
        self.assertIn("the bucket is in the region eu-", done.stderr)
        self.assertLessEqual(len(self.server.asked), 3)

    def test_says_nothing_to_others(self):
        """A redirect to another server gets no signature and no token."""
        other = serve({"/b/k": (b"x" * 512, '"e"')})
        place = f"http://127.0.0.1:{other.server_port}"
        try:
            self.server.rule = lambda h, path, *_: h.error(
                307, "TemporaryRedirect", Location=f"{place}{path}?token=HIDDEN") or True
            platter("info", "s3://b/k")
            self.assertTrue(other.asked)
            other.rule = lambda h, *_: h.error(403, "AccessDenied") or True
            done = platter("info", "s3://b/k", code=1)
            self.assertIn(f"redirects to {place}, which is not told who we are", done.stderr)
            self.assertNotIn("HIDDEN", done.stderr)
            for _, _, _, headers in other.asked:
                self.assertNotIn("Authorization", headers)
                self.assertNotIn("KEY", str(headers))
        finally:
            other.shutdown()
            other.server_close()

    def test_passes(self):
        """What passes is tried again: slow down, and failures behind a status that says success."""
        once = set()

        def rule(h, path, query, _):
            place = (h.command, query)
            if place in once:
                return False
            once.add(place)
            if h.command == "POST" and "uploadId" in query:
                h.answer(200, b"\n  <Error><Code>InternalError</Code></Error>")
            elif h.command == "PUT":
                h.error(503, "SlowDown")
            else:
                return False
            return True
        self.server.rule = rule
        self.upload()
        self.check_there()

    def test_answer_is_lost(self):
        """The upload was completed, and nobody heard of it."""
        def rule(h, path, query, body):
            if h.command == "POST" and "uploadId" in query and path in h.server.parts:
                h.server.rule = None
                h.answer = lambda *_, **__: h.connection.close() # what would be said
                h.keep(path, dict(urllib.parse.parse_qsl(query)), body)
                h.close_connection = True
                return True
            return False
        self.server.rule = rule
        self.upload()
        self.check_there()

    def test_answer_never_comes(self):
        """What was there before is not taken for what was sent, though it has its size and parts;
        what was completed is, though it has the same ETag."""
        def rule(h, path, query, body):
            if h.command == "POST" and "uploadId" in query:
                if self.completes and path in h.server.parts:
                    h.answer, answer = lambda *_, **__: None, h.answer
                    h.keep(path, dict(urllib.parse.parse_qsl(query)), body)
                    h.answer = answer
                h.error(400, "InvalidPart")
                return True
            return False
        self.server.rule = rule
        old = (bytes(2 * PART + 12345), '"x-3"', 50)
        self.server.objects["/b/k"] = old
        self.completes = False
        done = self.upload(code=1)
        self.assertIn("InvalidPart", done.stderr)
        self.assertEqual(self.server.objects["/b/k"], old)
        self.completes = True
        self.upload()
        self.check_there()

    def test_put_together_wrongly(self):
        def rule(h, path, query, body):
            if h.command != "POST" or "uploadId" not in query:
                return False
            del h.server.parts[path][2]
            body = body.replace(b"<PartNumber>2<", b"<")
            h.keep(path, dict(urllib.parse.parse_qsl(query)), body)
            return True
        self.server.rule = rule
        done = self.upload(code=1)
        self.assertIn(f"has {PART + 12345} bytes, and {2 * PART + 12345} were sent", done.stderr)

    def test_never_completes(self):
        def rule(h, path, query, _):
            if h.command == "POST" and "uploadId" in query:
                h.error(400, "InvalidPart", "<Message>One part is wrong &lt;really&gt;</Message>")
                return True
            return False
        self.server.rule = rule
        done = self.upload(code=1)
        self.assertIn("the upload cannot be completed", done.stderr)
        self.assertIn("InvalidPart (request 17): One part is wrong <really>", done.stderr)
        self.check_nothing()

    def test_a_part_is_refused(self):
        def rule(h, _, query, __):
            if "partNumber=2" in query:
                h.error(403, "AccessDenied")
                return True
            return False
        self.server.rule = rule
        done = self.upload(code=1)
        self.assertIn("part 2 of the upload cannot be written", done.stderr)
        self.check_nothing()

    def test_parts_that_come_late(self):
        """One abort is not enough where a part was still on its way."""
        aborts = []

        def rule(h, path, query, _):
            if "partNumber=2" in query:
                h.error(403, "AccessDenied")
                return True
            if h.command == "DELETE" and not aborts:
                aborts.append(query)
                h.answer(204)
                return True
            return False
        self.server.rule = rule
        self.upload(code=1)
        self.check_nothing()

    def test_cannot_be_aborted(self):
        """Whoever is left with parts is told so, whatever it was that failed."""
        def rule(h, _, query, __):
            if "partNumber=2" in query and self.refused:
                h.error(403, "AccessDenied")
            elif h.command == "DELETE":
                h.error(403, "AccessDenied")
            else:
                return False
            return True
        self.server.rule = rule
        self.refused = True
        words = (r"; the upload one%20%26%20only is still there \(s3://b/k: the upload cannot be "
                 r"aborted: .*AccessDenied.*platter-places\(7\)")
        done = self.upload(code=1)
        self.assertRegex(done.stderr, "part 2 of the upload cannot be written.*" + words)
        place = f"s3://b/k?part_size={PART}"
        done = platter("archive", "create", "-q", place, "-d", "scsi0=disk.raw", "-f", "raw",
                       "--compression=gzip", code=1)
        self.assertRegex(done.stderr, "part 2 of the upload cannot be written.*" + words)
        platter("archive", "create", "-q", "x.vma", "-d", "scsi0=disk.raw", "-f", "raw")
        done = platter("extract", "-q", "--spool=.", "-d", "scsi0", "-O", "raw", "x.vma", place,
                       code=1)
        self.assertRegex(done.stderr, "part 2 of the upload cannot be written.*" + words)
        self.refused = False
        copy = subprocess.Popen([PLATTER, "convert", "-f", "raw", "-O", "raw", "-r", "4M",
                                 "disk.raw", place], stderr=subprocess.PIPE, text=True)
        while not any("partNumber=2" in query for _, _, query, _ in self.server.asked[-1:]):
            self.assertIsNone(copy.poll())
        copy.send_signal(signal.SIGINT)
        self.assertRegex(copy.communicate(timeout=60)[1], "^platter: interrupted: .*" + words)

    def test_interrupted_at_the_end(self):
        """All is sent, and the server takes its time to put it together."""
        enough = threading.Event()

        def rule(h, _, query, __):
            if h.command == "POST" and "uploadId" in query:
                enough.wait(60)
            return False
        self.server.rule = rule
        place = f"s3://b/k?part_size={PART}"
        for argv in (["convert", "-f", "raw", "-O", "raw", "disk.raw", place],
                     ["archive", "create", "--compression=zstd", "-d", "scsi0=disk.raw",
                      "-f", "raw", "--digest", place]):
            self.server.asked.clear()
            copy = subprocess.Popen([PLATTER, *argv], stderr=subprocess.PIPE, text=True)
            while not any(command == "POST" and "uploadId" in query
                          for command, _, query, _ in self.server.asked):
                self.assertIsNone(copy.poll())
            copy.send_signal(signal.SIGTERM)
            said = copy.communicate(timeout=20)[1]
            self.assertIn("was taken away", said)
            self.assertEqual(copy.returncode, -signal.SIGTERM)
            self.check_nothing()
            self.assertEqual(self.server.objects, {}) # nor digests
        enough.set()

    def test_may_only_write(self):
        """Who may neither read objects nor list parts writes all the same, and leaves none."""
        def rule(h, _, query, __):
            if h.command in ("GET", "HEAD"):
                h.error(403, "AccessDenied")
            elif "partNumber=2" in query and self.refused:
                h.error(400, "InvalidDigest")
            else:
                return False
            return True
        self.server.rule = rule
        self.refused = False
        self.upload()
        self.check_there()
        self.server.objects.clear()
        self.refused = True
        done = self.upload(code=1)
        self.assertIn("InvalidDigest", done.stderr)
        self.assertNotIn("still there", done.stderr)
        self.check_nothing()

    def test_target_place(self):
        """Keys of what is written, whatever makes it; none of them is shown."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        endpoint = f"http://127.0.0.1:{self.server.server_port}"
        keys = f"endpoint={endpoint},access_key=KEY,secret_key=SECRET,region=here"
        platter("archive", "create", "-q", "x.vma", "-d", "scsi0=disk.raw", "-f", "raw")

        def check(*argv):
            done = platter(*argv, "--target-place", keys, env=env)
            self.assertNotIn("SECRET", done.stdout + done.stderr)
            platter("compare", "--place", keys, "-F", "raw", "s3://b/k", "disk.raw", env=env)

        check("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "s3://b/k")
        check("dd", "-f", "raw", "-O", "qcow2", "if=disk.raw", "of=s3://b/k")
        check("extract", "--spool=.", "-d", "scsi0", "-O", "qcow2", "x.vma", "s3://b/k")
        check("vma", "repack", "x.vma", "s3://b/k")
        check("archive", "create", "--digest", "-d", "scsi0=disk.raw", "-f", "raw", "s3://b/k")
        done = platter("verify", "--place", keys, "s3://b/k", env=env)
        self.assertIn("digest", done.stdout)
        self.assertEqual(sorted(os.listdir(".")), ["disk.raw", "x.vma"])
        done = platter("extract", "-d", "scsi0", "x.vma", "s3://b/k", "--target-place", keys,
                       code=1, env=env)
        self.assertIn("--spool", done.stderr)
        done = platter("create", "-f", "qcow2", f"s3://b/k?{keys.replace(',', '&')}", "1M", env=env)
        self.assertIn("'s3://b/k'", done.stdout)
        self.assertNotIn("SECRET", done.stdout)
        done = platter("create", "s3://b/folder/", "1M", code=1)
        self.assertIn("would look like a folder", done.stderr)
        done = platter("create", "--target-place", "no_such_key=1", "s3://b/k", "1M", code=1)
        self.assertIn("no_such_key", done.stderr)

    def test_over_a_backing_file(self):
        """What is left out of an image reads as zeros: it has no backing file."""
        self.server.objects["/b/base"] = (bytes(MIB), '"e"')
        for options in (["-b", "base"], ["-u", "-b", "base"]):
            done = platter("create", "-q", "-f", "qcow2", *options, "-F", "raw", "s3://b/k", "1M",
                           code=1)
            self.assertIn("cannot be made over a backing file", done.stderr)
        self.check_nothing()

    def test_where(self):
        """The host in small letters, for signatures; and whom the tools of Amazon trust."""
        port = self.server.server_port
        env = {**os.environ, "AWS_ENDPOINT_URL": f"http://LOCALHOST:{port}",
               "AWS_CA_BUNDLE": "missing.pem"}
        platter("info", "s3://b/k", code=1, env=env)
        self.assertEqual(self.server.asked[0][3]["Host"], f"localhost:{port}")
        env["AWS_ENDPOINT_URL"] = f"https://127.0.0.1:{port}"
        done = platter("info", "s3://b/k", code=1, env=env)
        self.assertIn("missing.pem", done.stderr)

    def test_makes_no_sense(self):
        for text in (b"", b"<R/>", b"<UploadId>", b"<UploadId>" + b"x" * 5000 + b"</UploadId>"):
            def rule(h, _, query, __, text=text):
                if query == "uploads=":
                    h.answer(200, text)
                    return True
                return False
            self.server.rule = rule
            done = self.upload(code=1)
            self.assertIn("does not say what the upload is called", done.stderr)


main()
