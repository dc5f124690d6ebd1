from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.grpc as triton
from support.foreign_models import serve
from support.rpc import Served


@pytest.fixture
def server() -> Iterator[Served]:
    served = serve()
    yield served
    served.stop(0.5)


@pytest.fixture
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client
