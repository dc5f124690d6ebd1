"""Several servers behind one client, and unix sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.client import FakeServer, Script, rows

from inferd.client import RetryPolicy


@pytest.fixture
def two() -> Iterator[tuple[FakeServer, FakeServer]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(FakeServer(Script(version=v))) for v in (1, 2))


def versions(client, count: int) -> list[int]:
    return [client.predict("m", {"x": rows()}).version for _ in range(count)]


def until_both(client) -> None:
    """Connections are opened one after the other. Requests are sent until both servers have answered."""
    seen: set[int] = set()
    while len(seen) < 2:
        seen.update(versions(client, 1))


@pytest.mark.parametrize("form", ["text", "list"])
def test_requests_are_sent_to_the_servers_in_turn(connect, two, form):
    addresses = [server.address for server in two]
    client = connect(",".join(addresses) if form == "text" else addresses)
    until_both(client)
    answered = versions(client, 20)
    assert answered.count(1) == answered.count(2) == 10


def test_calls_use_the_channels_in_turn(connect, server):
    client = connect(server.address, channels=3)
    for _ in range(9):
        client.predict("m", {"x": rows()})
    peers = server.script.peers
    assert len(set(peers)) == 3, "a connection each"
    assert peers == peers[:3] * 3


def test_names_are_looked_up(connect, two):
    client = connect([f"localhost:{server.port}" for server in two])
    until_both(client)


def test_a_server_that_has_ended_gets_no_requests(connect, two):
    first, second = two
    client = connect([first.address, second.address], retry=RetryPolicy(backoff=0.01))
    until_both(client)
    first.stop()
    assert set(versions(client, 30)) == {2}


def test_a_request_on_a_server_that_ends_is_repeated_on_another(connect, two):
    import grpc
    from support.client import Failure

    first, second = two
    client = connect([first.address, second.address])
    until_both(client)
    first.script.failures.append(Failure(grpc.StatusCode.UNAVAILABLE, drop=True))
    assert len(versions(client, 10)) == 10
    assert not first.script.failures


def test_servers_that_are_not_ready_get_no_requests_with_health_check(connect, two):
    first, second = two
    first.set_health("", False)
    second.set_health("", True)
    client = connect([first.address, second.address], health_check=True)
    assert set(versions(client, 20)) == {2}


def test_pick_first_uses_one_server(connect, two):
    client = connect([server.address for server in two], load_balancing="pick_first")
    assert len(set(versions(client, 20))) == 1


def test_unix_sockets(connect, tmp_path: Path):
    with FakeServer(address=f"unix:{tmp_path}/inferd.sock") as server:
        assert connect(server.address).predict("m", {"x": rows()}).version == 3
