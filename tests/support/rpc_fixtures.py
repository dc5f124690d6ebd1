"""Fixtures of tests with a real gRPC server: transport, protocols and access share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.hot_calls import Server, servers
from support.rpc import TRANSPORTS, Served


@pytest.fixture(params=sorted(TRANSPORTS))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a transport: a test that takes it runs over each."""
    return request.param


@pytest.fixture
def serve(kind: str) -> Iterator[Callable[..., Served]]:
    """Starts servers; they are stopped when the test ends."""
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
    """Starts real schedulers whose loop is the test's thread."""
    with servers() as start:
        yield start
