"""Bad tokens over HTTP, on the server with REST and on the one without."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.access import STATIC, guarded_config
from support.security import OTHER_SECRET, Call, Keys

from inferd.server.access.attempts import BURST
from inferd.server.access.authority import Authority
from inferd.server.access.rules import AccessRules
from inferd.server.config.schema import Admin
from inferd.server.errors import Unauthenticated
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpServer


def metrics(address: str, token: str, source: str) -> tuple[int, str]:
    """Status and error of a GET of /metrics from the address `source` of this machine."""
    connection = http.client.HTTPConnection(address, timeout=20, source_address=(source, 0))
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, "" if answer.status == 200 else json.loads(body)["error"]
    finally:
        connection.close()


@pytest.fixture(params=[HttpServer, RestServer])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[Authority], str]]:
    running = []

    def begin(authority: Authority) -> str:
        server = request.param(
            ["127.0.0.1:0"], lambda: b"m 1\n", lambda: ReadinessLike(True), rules=AccessRules(Admin(), authority)
        )  # fmt: skip
        running.append(server)
        return str(server.start()[0])

    yield begin
    for server in running:
        server.stop()


def test_bad_tokens_are_counted_by_the_address_of_the_client(start: Callable[[Authority], str], tmp_path: Path):
    keys = Keys()
    authority = Authority(guarded_config(tmp_path, keys).auth, lambda: 0.0)
    address = start(authority)
    for number in range(BURST - 1):
        bad = f"Bearer {keys.token(key=OTHER_SECRET, sub=str(number))}"
        with pytest.raises(Unauthenticated):
            authority.identify(Call(bad, peer="ipv4:127.0.0.1:1"))
    status, told = metrics(address, keys.token(key=OTHER_SECRET), "127.0.0.1")
    assert (status, "another signature" in told) == (401, True)
    good = keys.token(scope="metadata")
    status, told = metrics(address, good, "127.0.0.1")
    assert (status, "too many came" in told) == (401, True)
    assert metrics(address, good, "127.0.0.2") == (200, "")
    assert metrics(address, good, "127.0.0.1") == (
        200,
        "",
    )  # the token has been accepted before, so it is still checked


def test_several_authorization_headers_are_refused(start: Callable[[Authority], str], tmp_path: Path):
    address = start(Authority(guarded_config(tmp_path, Keys()).auth))
    good = f"Bearer {STATIC}"
    for values, wanted in (((good,), 200), ((good, "Bearer x"), 401), (("Bearer x", good), 401), ((good, good), 401)):
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.putrequest("GET", "/metrics")
        for value in values:
            connection.putheader("Authorization", value)
        connection.endheaders()
        assert connection.getresponse().status == wanted
        connection.close()
