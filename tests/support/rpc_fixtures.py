"""Fixtures for tests with a real gRPC server, shared by transport, protocols and access."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.hot_calls import Server, servers
from support.rpc import TRANSPORTS, Served


@pytest.fixture(params=sorted(TRANSPORTS))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a transport. Tests with this fixture run with each transport."""
    return request.param


@pytest.fixture
def serve(kind: str) -> Iterator[Callable[..., Served]]:
    """A function that starts a server. The servers are stopped at the end of the test."""
    started: list[Served] = []

    def start(**kwargs: object) -> Served:
        served = Served(kind, **kwargs)  # type: ignore[arg-type]
        started.append(served)
        return served

    yield start
    for served in started:
        served.end()


@pytest.fixture
def server(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture
def serve_hot() -> Iterator[Callable[..., Server]]:
    """A function that starts a server with a real scheduler, whose event loop is the test's thread."""
    with servers() as start:
        yield start
