"""Keeps up to a given number of requests under way, for `Client.predict_many`."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future

from inferd.client._shared.errors import ClientClosed, InferdError
from inferd.client._shared.prediction import Prediction
from inferd.client._shared.values import Inputs


def in_flight_window(
    send: Callable[[int, Inputs], Future[Prediction]],
    inputs: Iterable[Inputs],
    in_flight: int,
    ordered: bool,
    return_errors: bool,
) -> Iterator[Prediction | InferdError]:
    """Sends the items and yields their predictions. Takes an item only when there is room for its request. Cancels the
    requests in flight when the consumer ends the iteration. `return_errors`: errors are yielded, not raised."""
    open_calls: set[Future[Prediction]] = set()
    in_order: deque[Future[Prediction]] = deque()
    finished: queue.SimpleQueue[Future[Prediction]] = queue.SimpleQueue()

    def start(position: int, item: Inputs) -> None:
        try:
            future = send(position, item)
        except InferdError as error:
            if not return_errors or isinstance(error, ClientClosed):
                raise
            future = Future()
            future.set_exception(error)
        open_calls.add(future)
        if ordered:
            in_order.append(future)
        else:
            future.add_done_callback(finished.put)

    def take() -> Prediction | InferdError:
        future = in_order.popleft() if ordered else finished.get()
        open_calls.discard(future)
        try:
            return future.result()
        except InferdError as error:
            if not return_errors or isinstance(error, ClientClosed):
                raise
            return error
        except CancelledError:
            raise ClientClosed("a request of predict_many was cancelled from outside") from None

    try:
        for position, item in enumerate(inputs):
            start(position, item)
            if len(open_calls) >= in_flight:
                yield take()
        while open_calls:
            yield take()
    finally:
        for future in list(open_calls):
            future.cancel()
