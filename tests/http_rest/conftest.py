from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.rest import Rest


@pytest.fixture
def rest() -> Iterator[Rest]:
    with Rest() as found:
        yield found
