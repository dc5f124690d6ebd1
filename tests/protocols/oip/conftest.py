from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.grpc as triton
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
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client
