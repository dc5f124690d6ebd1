"""Floods of HTTP/2 frames: gRPC's core answers them or ends the connection, and others are served meanwhile."""

from __future__ import annotations

import struct

import pytest
from support.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
    head,
)
from support.rpc import PREDICT, Served, eventually

FRAMES = 20_000


def resets(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, head(PREDICT)) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


FLOODS = {
    "resets": lambda: (resets(2 * number + 1) for number in range(FRAMES // 10)),
    "streams without a message": lambda: (
        frame(HEADERS, END_HEADERS, 2 * number + 1, head(PREDICT)) for number in range(FRAMES // 10)
    ),
    "pings": lambda: (frame(PING, 0, 0, b"12345678") for _ in range(FRAMES)),
    "settings": lambda: (frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) for _ in range(FRAMES)),
    "window updates": lambda: (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) for _ in range(FRAMES)),
    "continuations": lambda: (
        frame(HEADERS, 0, 1, head(PREDICT)) if not number else frame(CONTINUATION, 0, 1, b"\0\x01x\x64" + b"v" * 100)
        for number in range(FRAMES)
    ),
    "empty data": lambda: (
        frame(DATA, 0, 1) if number else frame(HEADERS, END_HEADERS, 1, head(PREDICT)) for number in range(FRAMES)
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_others_are_served_during_a_flood_of_frames(server: Served, name: str) -> None:
    with RawClient(server.port) as client:
        client.sock.settimeout(0.5)
        block = b""
        for number, piece in enumerate(FLOODS[name]()):
            block += piece
            if number % 1000 == 999:
                try:
                    client.sock.sendall(block)  # nothing is read
                except OSError:
                    break  # the server has ended the connection, or takes no more
                block = b""
                assert server.predict()
    assert server.predict()
    eventually(lambda: (server.transport.open_calls, server.inflight.calls, server.inflight.nbytes) == (0, 0, 0), 60)
