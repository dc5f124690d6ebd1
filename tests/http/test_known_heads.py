"""Heads that are read once and then known by their bytes: only those that say nothing unusual."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.server.http.infer_routes import InferRoutes
from inferd.server.http.known_heads import KnownHeads

PLAIN = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 7"
ENDPOINT: Any = object()


@pytest.fixture
def heads() -> KnownHeads:
    return KnownHeads(
        InferRoutes([("/v2/models/{model}/infer", r"/v2/models/(?P<model>[^/]+)/infer", ENDPOINT)]), 50_000
    )


def test_a_plain_head_is_known_by_its_bytes(heads: KnownHeads) -> None:
    head = heads.of(PLAIN + b"\r\nX-A: 1\r\nx-a:  2\r\nConnection: Keep-Alive")
    assert head is not None
    assert (head.target.method, head.target.model, head.length) == ("POST /v2/models/{model}/infer", "m", 7)
    assert head.headers == {
        "host": "a", "content-length": "7", "x-a": "1, 2", "connection": "Keep-Alive",
    }  # fmt: skip
    assert heads.of(PLAIN + b"\r\nX-A: 1\r\nx-a:  2\r\nConnection: Keep-Alive") is head


def test_the_path_is_decoded_and_its_query_left_out(heads: KnownHeads) -> None:
    head = heads.of(PLAIN.replace(b"/m/", b"/a%20b%C3%BC/").replace(b"infer ", b"infer?x=/y/infer "))
    assert head is not None
    assert head.target.model == "a bü"


@pytest.mark.parametrize(
    "head",
    [
        PLAIN.replace(b"POST", b"PUT"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"/infer", b"/config"),
        PLAIN.replace(b"/m/", b"/m%2Fn/"),
        PLAIN.replace(b"Host: a\r\n", b""),
        PLAIN + b"\r\nHost: b",
        PLAIN + b"\r\nContent-Length: 7",
        PLAIN + b"\r\nContent-Length: 8",
        PLAIN.replace(b": 7", b": +7"),
        PLAIN.replace(b": 7", b": 7, 7"),
        PLAIN.replace(b": 7", b": 0x7"),
        PLAIN.replace(b": 7", b": 50001"),
        PLAIN.replace(b": 7", b": 20000"),  # so much JSON is read on a worker thread
        PLAIN.replace(b"\r\nContent-Length: 7", b""),
        PLAIN.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"),
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nTransfer-Encoding : chunked",
        PLAIN + b"\r\nContent-Encoding: gzip",
        PLAIN + b"\r\nExpect: 100-continue",
        PLAIN + b"\r\nConnection: close",
        PLAIN + b"\r\nConnection: Upgrade\r\nUpgrade: h2c",
        PLAIN + b"\r\nUpgrade: h2c",
        PLAIN + b"\r\nX: 1\n\nPOST /v2/models/m/infer HTTP/1.1",
        PLAIN + b"\r\nX: 1\nY: 2",
        PLAIN + b"\r\nX: 1\r\n folded",
        PLAIN + b"\r\nX: 1\rY: 2",
        PLAIN + b"\r\nX: 1\0",
        PLAIN + b"\r\nno colon",
        b"\r\n" + PLAIN,
        PLAIN.replace(b"/v2", b"http://b/v2").replace(b"POST", b"CONNECT"),
        b"",
        b"nonsense",
    ],
)  # fmt: skip
def test_all_else_is_left_to_the_parser(heads: KnownHeads, head: bytes) -> None:
    assert heads.of(head) is None
    assert heads.of(head) is None


def test_tensors_behind_the_json_may_be_longer(heads: KnownHeads) -> None:
    long = PLAIN.replace(b": 7", b": 40000")
    assert heads.of(long) is None
    assert heads.of(long + b"\r\nInference-Header-Content-Length: 100") is not None
    assert heads.of(long + b"\r\nInference-Header-Content-Length: 20000") is None


def test_what_is_kept_is_bounded(heads: KnownHeads) -> None:
    for number in range(2000):
        assert heads.of(PLAIN + b"\r\nX: %d" % number) is not None
    assert heads.of(PLAIN + b"\r\nX: " + b"y" * 5000) is not None
    assert len(heads._known) <= 512
    assert max(map(len, heads._known)) < 2100
