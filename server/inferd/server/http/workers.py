"""Where bodies are read and written: short ones at once, long ones on threads while others are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_SHORT: Final = 16 * 2**10  # bytes that cost less than the way to a thread and back


class BodyWorkers:
    """A few threads for long bodies. `run` is called on the event loop."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "inferd-http-work")

    async def run(self, nbytes: int, fn: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `fn` gives; `nbytes` is about what it has to read or write."""
        if nbytes <= _SHORT:
            return fn(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: fn(*args, **kwargs))

    def close(self) -> None:
        """Ends the threads once what runs has ended."""
        self._pool.shutdown(wait=False, cancel_futures=True)
