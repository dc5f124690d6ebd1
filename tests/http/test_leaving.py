"""A worker that leaves its HTTP port: it accepts no new connections, and closes open ones after their next response."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import pytest
from support.waiting import eventually

from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpServer


@pytest.mark.parametrize("kind", [HttpServer, RestServer])
def test_open_connections_close_after_their_next_response(kind: Callable[..., HttpServer | RestServer]) -> None:
    server = kind(["127.0.0.1:0"], lambda: b"metrics", lambda: ReadinessLike(True), shared=True)
    [address] = server.start()
    successor = kind([address], lambda: b"metrics", lambda: ReadinessLike(False, "another"), shared=True)
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert (answer.read(), answer.will_close) == (b'{"ready": true}\n', False)
        server.unlisten()
        successor.start()

        def new_connections_reach_the_successor() -> bool:
            fresh = http.client.HTTPConnection(address, timeout=10)
            try:
                fresh.request("GET", "/readyz")
                return fresh.getresponse().status == 503
            except ConnectionError:  # the connection was in the backlog of the port that was just closed
                return False
            finally:
                fresh.close()

        eventually(new_connections_reach_the_successor, "new connections reach the successor")
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.will_close) == (200, b'{"ready": true}\n', True)
    finally:
        connection.close()
        server.stop()
        successor.stop()
