from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from support.foreign_models import serve
from support.rpc import Served


@pytest.fixture
def server() -> Iterator[Served]:
    served = serve()
    yield served
    served.stop(0.5)


@pytest.fixture
def channel(server: Served) -> grpc.Channel:
    return server.channel()
