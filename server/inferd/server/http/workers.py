"""Threads that parse and write long HTTP bodies, so that the event loop can answer other requests meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
SHORT: Final = 16 * 2**10  # bytes; below this, the work costs less than handing it to a thread and back


class BodyWorkers:
    """A small thread pool for long bodies. `run` is called on the event loop."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "inferd-http-work")

    async def run(self, nbytes: int, fn: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of `fn(*args, **kwargs)`: run at once for few bytes, on a thread for many. `nbytes` is roughly
        how much `fn` reads or writes."""
        if nbytes <= SHORT:
            return fn(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: fn(*args, **kwargs))

    def close(self) -> None:
        """Ends the threads when their current tasks are done, and drops tasks that have not started. Does not wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
