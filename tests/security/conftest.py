from __future__ import annotations

import pytest
from support.security import Keys


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()
