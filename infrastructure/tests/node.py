"""Plays a machine that becomes a node, for one command: node.py DIRECTORY COMMAND..., in its own namespaces (`unshare --mount
--net --pid --fork --mount-proc`), so that this machine does not change.

/etc and /usr/local/bin come from DIRECTORY; /run and /var/lib are empty. Three servers answer: the instance's metadata (IMDSv2)
with DIRECTORY/user-data, github.com over TLS with the files of DIRECTORY/github, and systemd's bus, which accepts every call:
nodeadm only subscribes to it before it starts a unit.
"""

import functools
import http.server
import json
import os
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(sys.argv[1])
METADATA = {
    "/latest/meta-data/mac": b"02:00:00:00:00:01",
    "/latest/dynamic/instance-identity/document": json.dumps(
        {"instanceId": "i-1", "region": "us-east-1", "instanceType": "t3.medium", "availabilityZone": "us-east-1a"}
    ).encode(),
}


class Metadata(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):  # noqa: N802
        self.answer(b"token")

    def do_GET(self):  # noqa: N802
        self.answer(METADATA[self.path] if self.path in METADATA else (HERE / "user-data").read_bytes())

    def answer(self, body):
        self.send_response(200)
        self.send_header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "600")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Bus(socketserver.StreamRequestHandler):
    """The D-Bus specification, "Authentication protocol" and "Message format"."""

    def handle(self):
        for line in self.rfile:
            if b"AUTH" in line:
                self.wfile.write(b"OK 0123456789abcdef\r\n" if b"EXTERNAL" in line else b"REJECTED EXTERNAL\r\n")
            elif b"NEGOTIATE_UNIX_FD" in line:
                self.wfile.write(b"AGREE_UNIX_FD\r\n")
            elif line == b"BEGIN\r\n":
                break
        while head := self.rfile.read(16):
            _, kind, flags, _, body, serial, fields = struct.unpack("<BBBBIII", head)
            self.rfile.read(-(-fields // 8) * 8 + body)
            if kind == 1 and not flags & 1:  # a call that expects an answer: an empty one, with its serial
                self.wfile.write(struct.pack("<BBBBIII4sI", ord("l"), 2, 1, 1, 0, serial, 8, b"\x05\x01u\0", serial))


def run(*command):
    subprocess.run(command, check=True)


def serve(server):
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    for ours, theirs in {"etc": "/etc", "bin": "/usr/local/bin"}.items():
        run("mount", "--bind", HERE / ours, theirs)
    for empty in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "tmpfs", empty)
    Path("/run/systemd").mkdir()
    serve(http.server.ThreadingHTTPServer(("169.254.169.254", 80), Metadata))
    serve(socketserver.ThreadingUnixStreamServer("/run/systemd/private", Bus))
    files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=HERE / "github")
    github = http.server.ThreadingHTTPServer(("127.0.0.1", 443), files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "github.pem")
    github.socket = context.wrap_socket(github.socket, server_side=True)
    serve(github)
    environment = {"PATH": f"/usr/local/bin:{os.environ['PATH']}", "CURL_CA_BUNDLE": str(HERE / "github.pem")}
    sys.exit(subprocess.run(sys.argv[2:], env=environment, check=False).returncode)


main()
