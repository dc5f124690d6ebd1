from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from support.foreign_models import serve
from support.rpc import TRANSPORTS, Served


@pytest.fixture(params=sorted(TRANSPORTS))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a transport. Every test with a server runs on all transports."""
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[Served]:
    served = serve(kind=kind)
    yield served
    served.end()


@pytest.fixture
def channel(server: Served) -> grpc.Channel:
    return server.channel()
