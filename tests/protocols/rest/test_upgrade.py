"""Requests to upgrade to another protocol, as Java's HttpClient and `curl --http2` send them: they are answered over
HTTP/1.1, with their bodies and the requests that follow."""

from __future__ import annotations

import json
import socket

import pytest
from support.rest import Rest, tensor

from inferd.server.http.server import HttpLimits

BODY = json.dumps({"inputs": [tensor("x", [[1.0, 2.0]])]}).encode()
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
HEAD = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n" + UPGRADE
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
NEXT = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def answers(sock: socket.socket, count: int) -> list[bytes]:
    """The statuses of the next `count` responses, each with " y" if its body has the output "y"."""
    data = b""
    found: list[bytes] = []
    while len(found) < count:
        more = sock.recv(65536)
        assert more, data
        data += more
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length" in head else 0
            if len(data) < end + 4 + length:
                break
            found.append(data[9:12] + (b" y" if b'"y"' in data[end : end + 4 + length] else b""))
            data = data[end + 4 + length :]
    assert not data
    return found


@pytest.mark.parametrize("request_", [WHOLE, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("cut", ["nowhere", "head", "body"])
def test_an_upgrade_request_is_answered_over_http_1_and_the_connection_kept(
    rest: Rest, request_: bytes, cut: str
) -> None:
    sock = rest.raw()
    at = {"nowhere": 0, "head": 60, "body": request_.index(b"\r\n\r\n") + 10}[cut]
    for _ in range(2):
        sock.sendall(request_[:at])
        rest.get("/healthz")  # a round trip, so that the server reads the first part alone
        sock.sendall(request_[at:] + NEXT)
        assert answers(sock, 2) == [b"200 y", b"200"]


def test_a_websocket_request_is_answered_as_plain_http(rest: Rest) -> None:
    sock = rest.raw()
    upgrade = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
    sock.sendall(NEXT[:-2] + upgrade + b"\r\n" + NEXT)
    assert answers(sock, 2) == [b"200", b"200"]


def test_connect_is_refused() -> None:
    with Rest(limits=HttpLimits(head=0.5)) as rest:
        sock = rest.raw()
        sock.sendall(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers(sock, 1) == [b"400"]
        assert sock.recv(1) == b""


def test_connection_close_closes_the_connection(rest: Rest) -> None:
    sock = rest.raw()
    sock.sendall(WHOLE.replace(b"Connection: ", b"Connection: close, "))
    assert answers(sock, 1) == [b"200 y"]
    assert sock.recv(1) == b""
