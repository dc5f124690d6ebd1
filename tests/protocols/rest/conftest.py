from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.rest import Rest


@pytest.fixture(scope="session")
def leave() -> Iterator[Callable[[Rest], None]]:
    """Ends a server beside the tests that follow, for uvicorn takes two tenths of a second. That each has ended without
    an error is looked at in the end."""
    ending: list[Future[None]] = []
    with ThreadPoolExecutor(4) as pool:
        yield lambda rest: ending.append(pool.submit(rest.__exit__))
    for each in ending:
        each.result()


@pytest.fixture
def rest(leave: Callable[[Rest], None]) -> Iterator[Rest]:
    found = Rest().__enter__()
    yield found
    leave(found)
