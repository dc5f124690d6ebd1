"""Heads that nobody may accept, and requests that come many at a time, on the HTTP port with and without REST."""

from __future__ import annotations

import logging
import re
import socket

import pytest

from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpServer

OK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET /healthz HTTP/1.1\r\nHost: a\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"
CLOSE = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Counted:
    """The bytes of responses that clients have not read."""

    crowded = False

    def __init__(self) -> None:
        self.nbytes = self.most = 0

    def count(self, nbytes: int) -> None:
        self.nbytes += nbytes
        self.most = max(self.most, self.nbytes)

    def release(self, nbytes: int) -> None:
        self.nbytes -= nbytes


@pytest.fixture(scope="module", params=[HttpServer, RestServer])
def port(request):
    server = request.param(["127.0.0.1:0"], lambda: b"m 1\n", lambda: ReadinessLike(True))
    (address,) = server.start()
    yield int(address.rpartition(":")[2])
    server.stop()


@pytest.fixture(scope="module")
def rest_port():
    server = RestServer(["127.0.0.1:0"], lambda: b"m 1\n", lambda: ReadinessLike(True))
    (address,) = server.start()
    yield int(address.rpartition(":")[2])
    server.stop()


def exchange(port: int, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(sent)
        received = b""
        try:
            while piece := sock.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1.1 (\d+)", answer)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"one Host header, got 0"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", b"one Host header, got 2"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nhOsT: b\r\n\r\n", b"one Host header, got 2"),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", b"one Host header, got 2"),
        (b"GET /healthz HTTP/1.1\r\nHosts: a\r\n\r\n", b"one Host header, got 0"),
        (b"GET /healthz HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", b"one Host header, got 0"),
        (b"GET /healthz HTTP/0.9\r\n\r\n", b"expected"),
        (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", b"expected"),
        (b"GET /healthz HTTP/3\r\nHost: a\r\n\r\n", b"expected"),
        (b"GET /healthz\r\n\r\n", b"expected"),
    ],
)
def test_heads_that_nobody_may_accept_are_refused(port: int, head: bytes, reason: bytes) -> None:
    answer = exchange(port, head)
    assert statuses(answer) == [b"400"]
    assert reason in answer
    assert b"connection: close" in answer.lower()


def test_http_1_0_needs_no_host(port: int) -> None:
    assert statuses(exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n")) == [b"200"]


@pytest.mark.parametrize("ends", [UPGRADE, OK])
def test_many_pipelined_requests_are_answered_or_end_the_connection(
    rest_port: int, ends: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = exchange(rest_port, UPGRADE * 20 + ends * 2000 + CLOSE)
    found = statuses(answer)
    # Up to 64 wait behind the first; the rest is not read, and the connection ends with the last answer.
    assert set(found) == {b"200"}
    assert 20 < len(found) <= 66
    assert not [record for record in caplog.records if record.exc_info]
    assert statuses(exchange(rest_port, UPGRADE * 40 + CLOSE)) == [b"200"] * 41


def test_a_bad_head_behind_good_ones_does_not_answer_before_them(rest_port: int) -> None:
    answer = exchange(rest_port, OK * 3 + b"nonsense\r\n\r\n")
    assert statuses(answer) == [b"200"] * 3


def test_a_response_that_is_not_read_counts() -> None:
    counted = Counted()
    server = RestServer(["127.0.0.1:0"], lambda: b"x" * 20_000_000, lambda: ReadinessLike(True), unwritten=counted)
    (address,) = server.start()
    port = int(address.rpartition(":")[2])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
        assert size > 20_000_000
        assert counted.most > 1_000_000
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(1)
    finally:
        server.stop()
    assert counted.nbytes == 0
