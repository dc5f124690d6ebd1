"""A fake server and the client under test. Tests with the fixture `client` or `connect` run with both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.both_clients import OverAsync, OverSync
from support.client import FakeServer, Script


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def script(server: FakeServer) -> Script:
    return server.script


@pytest.fixture(params=[OverSync, OverAsync], ids=["sync", "aio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function that makes a client. The clients are closed at the end of the test."""
    made: list[Any] = []

    def make(address: Any, **options: Any) -> Any:
        made.append(request.param(address, **options))
        return made[-1]

    yield make
    for client in made:
        client.end()


@pytest.fixture
def client(connect: Callable[..., Any], server: FakeServer) -> Any:
    return connect(server.address)
