from __future__ import annotations

import pytest
from support.rpc_fixtures import kind, serve, serve_hot, server
from support.security import Keys

__all__ = ["keys", "kind", "serve", "serve_hot", "server"]


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()
