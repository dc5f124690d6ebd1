from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.rest import Rest


@pytest.fixture(scope="session")
def leave() -> Iterator[Callable[[Rest], None]]:
    """Stops a server in the background, because uvicorn takes 0.2 s to stop. Errors of stopping fail the session."""
    ending: list[Future[None]] = []
    with ThreadPoolExecutor(4) as pool:
        yield lambda rest: ending.append(pool.submit(rest.__exit__))
    for future in ending:
        future.result()


@pytest.fixture
def rest(leave: Callable[[Rest], None]) -> Iterator[Rest]:
    found = Rest().__enter__()
    yield found
    leave(found)
