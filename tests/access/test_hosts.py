"""Pages of other sites, in a browser on the server's own machine: they reach neither operators' calls nor pages."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.rest import Rest
from support.rpc import FakeManager

from inferd.server.access.locality import HostNames

LOAD = "/v2/repository/models/digits/load"
OWN = socket.gethostname()


@pytest.fixture(scope="module")
def rest() -> Iterator[Rest]:
    with Rest(manager=FakeManager()) as server:
        yield server


@pytest.fixture(scope="module")
def named() -> Iterator[Rest]:
    with Rest(manager=FakeManager(), http={"hosts": ["models.example"]}) as server:
        yield server


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_another_name_of_this_machine_reaches_nothing_for_operators_or_browsers(rest: Rest, host: str) -> None:
    """DNS rebinding: the site's name points to 127.0.0.1, and the browser sends the name."""
    for path in ("/docs", "/openapi.json"):
        answer = rest.get(path, Host=host)
        assert answer.status == 403
        assert "http.hosts" in answer.error
    assert rest.post(LOAD, {}, Host=host).status == 403
    assert rest.get("/v2/models/digits", Host=host).status == 200  # open to everybody who reaches the port


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:1", "app.localhost", OWN, "10.1.2.3"]
)
def test_the_servers_own_names_reach_them(rest: Rest, host: str) -> None:
    assert rest.get("/docs", Host=host).status == 200
    assert rest.post(LOAD, {}, Host=host).status == 200


def test_names_of_the_settings_count(named: Rest) -> None:
    for host, status in (("models.example", 200), ("MODELS.example.:8000", 200), ("other.example", 403)):
        assert named.get("/docs", Host=host).status == status
        assert named.post(LOAD, {}, Host=host).status == status


@pytest.mark.parametrize(
    "header", [{"Origin": "http://localhost"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-origin"}]
)
def test_no_page_calls_for_operators_whatever_its_origin(rest: Rest, header: dict[str, str]) -> None:
    assert rest.post(LOAD, {}, **header).status == 403


def test_what_is_a_name_of_this_machine() -> None:
    names = HostNames(["Models.Example", "*.no"])
    for good in (None, "models.example", "models.example.:80", "[::1]", "1.2.3.4", "LOCALHOST"):
        assert names.known(good)
    for bad in ("", " ", "a.no", "models.example.evil", "evil", "[evil]", "1.2.3.4.evil", "localhost@evil"):
        assert not names.known(bad)
    assert HostNames(["*"]).known("evil")
