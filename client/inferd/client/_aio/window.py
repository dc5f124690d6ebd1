"""Keeps up to a given number of requests under way, for `AsyncClient.predict_many`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from inferd.client._shared.errors import ClientClosed, InferdError
from inferd.client._shared.prediction import Prediction
from inferd.client._shared.values import Inputs


async def async_in_flight_window(
    send: Callable[[int, Inputs], Coroutine[Any, Any, Prediction]],
    inputs: Iterable[Inputs] | AsyncIterable[Inputs],
    in_flight: int,
    ordered: bool,
    return_errors: bool,
) -> AsyncIterator[Prediction | InferdError]:
    """Sends the items and yields their predictions. Takes an item only when there is room for its request. Cancels the
    requests in flight when the consumer ends the iteration. `return_errors`: errors are yielded, not raised."""
    open_tasks: set[asyncio.Task[Prediction]] = set()
    in_order: deque[asyncio.Task[Prediction]] = deque()
    finished: asyncio.Queue[asyncio.Task[Prediction]] = asyncio.Queue()

    async def take() -> Prediction | InferdError:
        task = in_order.popleft() if ordered else await finished.get()
        try:
            return await task
        except InferdError as error:
            if not return_errors or isinstance(error, ClientClosed):
                raise
            return error
        finally:
            open_tasks.discard(task)

    position = 0
    try:
        async for item in _items(inputs):
            task = asyncio.get_running_loop().create_task(send(position, item))
            position += 1
            open_tasks.add(task)
            if ordered:
                in_order.append(task)
            else:
                task.add_done_callback(finished.put_nowait)
            if len(open_tasks) >= in_flight:
                yield await take()
        while open_tasks:
            yield await take()
    finally:
        left = list(open_tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _items(inputs: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(inputs, AsyncIterable):
        async for item in inputs:
            yield item
    else:
        for item in inputs:
            yield item
