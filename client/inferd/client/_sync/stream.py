"""Many requests over one stream, blocking."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from itertools import count
from types import TracebackType
from typing import Any, Unpack

import grpc

from inferd.client._shared.core import Call, Metadata, request_error
from inferd.client._shared.errors import ClientClosed, InferdError, InvalidInput, InvalidResponse, Unavailable
from inferd.client._shared.options import CallOptions
from inferd.client._shared.prediction import Array, Prediction
from inferd.client._shared.stream_messages import id_for, of_model, read_outcome, stream_call
from inferd.client._shared.values import Inputs
from inferd.client._sync.connection import Connection
from inferd.client._sync.future import PredictionFuture


class PredictStream:
    """Many requests over one stream. Each is answered as soon as its answer is ready, in any order.

        with client.stream() as stream:
            futures = [stream.submit("digits", {"image": image}) for image in images]
            answers = [future.result() for future in futures]

    Thread-safe. If a request fails, only its own future fails. If the stream breaks, all futures in flight fail with
    Unavailable or the server's error, and `submit` raises the same error: nothing is sent again, so open a new stream.
    The end of the `with` block and `close` wait for the answers in flight; `cancel`, and an exception in the `with`
    block, do not.
    """

    def __init__(
        self,
        connection: Connection,
        method: Any,
        in_flight: int,
        metadata: Metadata,
        arrays: Callable[[Call, object], dict[str, Array]],
    ) -> None:
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}; expected 1 or more")
        self._connection = connection
        self._arrays = arrays
        self._room = threading.Semaphore(in_flight)
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, PredictionFuture]] = {}
        self._numbers = count(1)
        self._ended: InferdError | None = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = connection.stream_call(method, iter(self._outgoing.get, None), None, metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="inferd-client-stream", daemon=True)
        self._reader.start()

    def submit(self, model: str, inputs: Inputs, **options: Unpack[CallOptions]) -> Future[Prediction]:
        """Sends one request and returns the Future of its prediction.

        The arguments are those of `Client.predict`, without `timeout`, `metadata` and `stateful`, which only a separate
        call can have. Waits while `in_flight` requests are under way. A request without `request_id` gets one; two
        requests in flight cannot have the same. Raises InvalidInput, ClientClosed, and the error that ended the stream.
        """
        call = stream_call(model, options)
        arrays = self._arrays(call, inputs)
        self._room.acquire()
        future = PredictionFuture()
        try:
            with self._lock:
                if self._ended is not None:
                    raise self._ended
                request_id = id_for(call.request_id, self._open, self._numbers)
                message = call.encode(arrays, request_id)
                self._open[request_id] = (model, future)
                self._outgoing.put(message)
        except BaseException:
            self._room.release()
            raise
        return future

    def close(self, timeout: float | None = None) -> None:
        """Accepts no more requests, waits for the answers in flight, and ends the stream. After `timeout` seconds (None
        for no limit), the stream is cancelled and the remaining futures fail."""
        with self._lock:
            if self._ended is None:
                self._ended = ClientClosed("the stream is closed")
            waiting = [future for _, future in self._open.values()]
        self._outgoing.put(None)
        if wait(waiting, timeout).not_done:
            self._call.cancel()
        self._reader.join(timeout)
        self._call.cancel()

    def cancel(self) -> None:
        """Ends the stream at once; the futures in flight fail."""
        with self._lock:
            if self._ended is None:
                self._ended = ClientClosed("the stream is cancelled")
        self._outgoing.put(None)
        self._call.cancel()
        self._reader.join()

    def __enter__(self) -> PredictStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.cancel()

    def _read(self) -> None:
        end: InferdError = Unavailable(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        try:
            for message in self._call:
                request_id, outcome = read_outcome(message, self._model_of)
                with self._lock:
                    _, future = self._open.pop(request_id, ("", None))
                if future is not None:
                    self._room.release()
                    settle(future, outcome)
                elif isinstance(outcome, InferdError):
                    raise outcome  # a request has failed, but it is unknown which one: end the stream
        except grpc.RpcError as failure:
            end = self._connection.diagnosis.explained(request_error(failure))
        except InferdError as failure:
            end = failure
            self._call.cancel()
        except Exception as failure:
            # If the reader ended without this, all futures in flight would hang.
            end = InvalidResponse(f"the stream cannot be read: {failure!r}")
            self._call.cancel()
        self._finish(end)

    def _model_of(self, request_id: str) -> str:
        return self._open.get(request_id, ("", None))[0]

    def _finish(self, end: InferdError) -> None:
        if self._connection.closing:
            end = ClientClosed("the client was closed while the stream was open")
        with self._lock:
            left = list(self._open.items())
            self._open.clear()
            if self._ended is None:
                self._ended = end
            elif isinstance(self._ended, ClientClosed):
                end = self._ended if left else end
        self._outgoing.put(None)
        for request_id, (model, future) in left:
            self._room.release()
            settle(future, of_model(end, model, request_id))


def settle(future: Future[Prediction], outcome: Prediction | InferdError) -> None:
    """Sets a future's result or error. A cancelled future stays cancelled."""
    try:
        if isinstance(outcome, Prediction):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
    except InvalidStateError:
        pass
