# SPDX-License-Identifier: MIT
"""Web servers for the tests, on ports of loopback: nginx, and one that does what servers should not."""
import email.utils
import os
import re
import socket
import subprocess
import threading
import time

from nbd_servers import Server, free_port

ETAG = '"first"'
CHANGED_ETAG = '"second"'


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def make_certificates():
    """A CA of our own, a server's certificate for localhost, and a client's: *.pem in this folder."""
    def openssl(*argv):
        subprocess.run(["openssl", *argv], check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=CA of a test")
    for who, extension in (("server", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                           ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", *key, "-keyout", f"{who}-key.pem", "-out", f"{who}.csr",
                "-subj", f"/CN={who}", "-addext", extension)
        with open(f"{who}.ext", "w", encoding="ascii") as f:
            f.write(extension)
        openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-out", f"{who}.pem", "-days", "2", "-extfile", f"{who}.ext")


CONFIG = """
{user} worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{ worker_connections 256; }}
http {{
    log_format what '$request_method $server_protocol $server_port $uri "$http_range" $status '
                    '"$http_authorization" "$http_x_token"';
    access_log {folder}/access.log what;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    root {folder}/www;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server-key.pem;
    server {{ listen 127.0.0.1:{plain};
        location /private/ {{ alias {folder}/www/; auth_basic x; auth_basic_user_file {folder}/users; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /elsewhere/ {{ auth_basic x; auth_basic_user_file {folder}/users;
            rewrite ^/elsewhere/(.*)$ http://127.0.0.1:{other}/$1 permanent; }}
        location /around/ {{ rewrite ^ /around/ redirect; }}
        location /odd/ {{ return 302 ftp://127.0.0.1/x; }}
    }}
    server {{ listen 127.0.0.1:{other}; }}
    server {{ listen 127.0.0.1:{bare} http2; }}
    server {{ listen 127.0.0.1:{whole}; max_ranges 0; }}
    server {{ listen 127.0.0.1:{tls} ssl http2;
        location /down/ {{ rewrite ^/down/(.*)$ http://127.0.0.1:{plain}/$1 redirect; }} }}
    server {{ listen 127.0.0.1:{old} ssl; ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0; }}
    server {{ listen 127.0.0.1:{known} ssl; ssl_verify_client on; ssl_client_certificate {folder}/ca.pem; }}
}}
"""


class Nginx(Server):
    """nginx over ./www, each of its ports another way to behave. What it was asked is in asked()."""

    names = ("plain", "other", "bare", "whole", "tls", "old", "known")

    def __init__(self):
        self.ports = {}
        while len(set(self.ports.values())) < len(self.names):
            self.ports = {name: free_port() for name in self.names}
        folder = os.path.abspath(".")
        make_certificates()
        with open("users", "w", encoding="ascii") as f:
            f.write("me:{PLAIN}pass word\n")
        with open("nginx.conf", "w", encoding="ascii") as f:
            f.write(CONFIG.format(folder=folder, user="user root;" if os.getuid() == 0 else "",
                                  **self.ports))
        super().__init__(["nginx", "-e", f"{folder}/nginx.err", "-c", f"{folder}/nginx.conf"],
                         lambda: all(map(connects, self.ports.values())), None, "nginx.log")

    def url(self, path, port="plain", login=""):
        scheme = "https" if port in ("tls", "old", "known") else "http"
        return f"{scheme}://{login}127.0.0.1:{self.ports[port]}/{path}"

    def asked(self):
        """The requests since the last call, each a line."""
        time.sleep(0.05)  # they are written behind the answer
        with open("access.log", "r+", encoding="utf-8") as f:
            lines = f.read().splitlines()
            f.truncate(0)
        return lines


class Listener:
    """A server of our own: serve() has each connection, in a thread."""

    def __init__(self):
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def stop(self):
        """The thread has ended when the socket is closed: else it might accept from whatever gets that number."""
        self.ended.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()


class Socks(Listener):
    """A SOCKS5 proxy (RFC 1928, 1929) for one user. Every name is this machine to it."""

    def __init__(self, user, password):
        self.login = (user.encode(), password.encode())
        self.asked = []  # (name, port)
        super().__init__()

    def serve(self, connection):
        with connection, connection.makefile("rb") as f:
            f.read(f.read(2)[1])
            connection.sendall(b"\5\2")
            f.read(1)
            login = tuple(f.read(f.read(1)[0]) for _ in range(2))
            connection.sendall(b"\1" + (b"\0" if login == self.login else b"\1"))
            if login != self.login:
                return
            f.read(4)
            name, port = f.read(f.read(1)[0]), int.from_bytes(f.read(2), "big")
            self.asked.append((name.decode(), port))
            with socket.create_connection(("127.0.0.1", port)) as server:
                connection.sendall(b"\5\0\0\1" + bytes(6))
                threading.Thread(target=self.lead, args=(server, connection), daemon=True).start()
                self.lead(connection, server)

    @staticmethod
    def lead(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        b.close()


class Faulty(Listener):
    """A server of one file that misbehaves as `plan` says: a function of the number of the request
    (from 0) and the range, which answers None or one of the faults below."""

    def __init__(self, content, plan=lambda n, first, last: None):
        self.content = content
        self.etag = ETAG
        self.date = None
        self.plan = plan
        self.requests = []  # (first, last, headers)
        self.lock = threading.Lock()
        super().__init__()

    def url(self, path="disk"):
        return f"http://127.0.0.1:{self.port}/{path}"

    def serve(self, connection):
        with connection:
            rest = b""
            try:
                while True:
                    while b"\r\n\r\n" not in rest:
                        more = connection.recv(65536)
                        if not more:
                            return
                        rest += more
                    head, rest = rest.split(b"\r\n\r\n", 1)
                    if not self.answer(connection, head.decode("latin-1").split("\r\n")):
                        return
            except OSError:
                return

    def answer(self, connection, lines):
        """Whether the connection goes on."""
        method = lines[0].split()[0]
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        first, last = map(int, found.groups()) if found else (0, len(self.content) - 1)
        with self.lock:
            number = len(self.requests)
            self.requests.append((first, last, headers))
        fault = self.plan(number, first, last)
        kind, *more = fault if isinstance(fault, tuple) else (fault,)
        if kind == "change":
            self.content, self.etag = more
            kind = None
        last = min(last, len(self.content) - 1)
        status, said = "206 Partial Content", {"ETag": self.etag}
        if self.date:
            said["Last-Modified"] = self.date
        body = self.content[first:last + 1]
        said["Content-Range"] = f"bytes {first}-{last}/{len(self.content)}"
        if not found or kind in ("whole", "unframed"):
            status, body = "200 OK", self.content
            del said["Content-Range"]
        elif first >= len(self.content):
            status, body = "416 Range Not Satisfiable", b""
            said["Content-Range"] = f"bytes */{len(self.content)}"
        if kind == "drop":
            return False
        if kind == "garbage":
            connection.sendall(more[0])
            return False
        if kind == "status":
            status, body, said = more[0], b"<Error>it is broken</Error>", dict(more[1])
        if kind == "short":
            body = body[:more[0]]
            said["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{len(self.content)}"
        if kind == "say":
            said.update(more[0])
        said = {k: v for k, v in said.items() if v is not None}
        if kind == "more":
            body += b"more than there is"
        if kind != "unframed":
            said.setdefault("Content-Length", str(len(body)))
        head = f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in said.items()) + "\r\n"
        connection.sendall(head.encode("latin-1"))
        if method == "HEAD":
            return True
        if kind == "drip":
            while body and not self.ended.wait(0.1):
                connection.sendall(body[:more[0] // 10])
                body = body[more[0] // 10:]
            return False
        if kind in ("truncate", "stall"):
            connection.sendall(body[:more[0]])
            if kind == "stall":
                self.ended.wait(30)
            return False
        connection.sendall(body)
        return kind != "unframed"


def date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)
