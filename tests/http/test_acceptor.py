"""The HTTP port when descriptors run out, and TLS handshakes that say nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

FULL = """
import asyncio, logging, os, resource, socket, sys, threading, urllib.request
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpServer
lines = []
class Kept(logging.Handler):
    def emit(self, record): lines.append(record)
logging.getLogger().addHandler(Kept())
kind = {"pages": HttpServer, "rest": RestServer}[sys.argv[1]]
server = kind(["127.0.0.1:0"], lambda: b"m 1", lambda: ReadinessLike(True))
(address,) = server.start()
def ask(): return urllib.request.urlopen(f"http://{address}/healthz", timeout=60).status
assert ask() == 200
host, port = address.split(":")
clients = [socket.socket() for _ in range(40)]
taken = [os.open(os.devnull, os.O_RDONLY)]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken[0], *(c.fileno() for c in clients)) + 6, 4096))
while True:  # all but none are left
    try: taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: break
for client in clients:
    client.settimeout(60)
    client.connect((host, int(port)))
# Each is told at once: its connection is closed.
for client in clients:
    try: assert client.recv(1) == b""
    except ConnectionResetError: pass
for descriptor in taken: os.close(descriptor)
assert ask() == 200
server.stop()
assert 1 <= len(lines) <= 2, lines
assert "connections are turned away" in lines[0].getMessage()
assert not [record for record in lines if record.exc_info], lines
"""


@pytest.mark.parametrize("kind", ["pages", "rest"])
def test_without_descriptors_clients_are_told_and_the_log_is_quiet(kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, kind], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
