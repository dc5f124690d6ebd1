"""Many requests over one stream, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from types import TracebackType
from typing import Any, Unpack

import grpc

from inferd.client._aio.connection import AsyncConnection
from inferd.client._shared.core import Call, Metadata
from inferd.client._shared.errors import ClientClosed, InferdError, InvalidInput, InvalidResponse, Unavailable
from inferd.client._shared.options import CallOptions
from inferd.client._shared.prediction import Array, Prediction
from inferd.client._shared.stream_messages import id_for, of_model, read_outcome, stream_call
from inferd.client._shared.values import Inputs


class AsyncPredictStream:
    """Many requests over one stream. Each is answered as soon as its answer is ready, in any order.

        async with client.stream() as stream:
            futures = [await stream.submit("digits", {"image": image}) for image in images]
            answers = [await future for future in futures]

    Belongs to the client's event loop. If a request fails, only its own future fails. If the stream breaks, all futures
    in flight fail with Unavailable or the server's error, and `submit` raises the same error: nothing is sent again, so
    open a new stream. The end of the `async with` block and `close` wait for the answers in flight; `cancel`, and an
    exception in the block, do not.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        in_flight: int,
        metadata: Metadata,
        arrays: Callable[[Call, object], Awaitable[dict[str, Array]]],
    ) -> None:
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}; expected 1 or more")
        self._connection = connection
        self._arrays = arrays
        self._room = asyncio.Semaphore(in_flight)
        self._writing = asyncio.Lock()
        self._open: dict[str, tuple[str, asyncio.Future[Prediction]]] = {}
        self._numbers = count(1)
        self._ended: InferdError | None = None
        self._call: Any = connection.methods.predict_stream(metadata=connection.metadata(metadata))
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def submit(self, model: str, inputs: Inputs, **options: Unpack[CallOptions]) -> asyncio.Future[Prediction]:
        """Sends one request and returns the future of its prediction. The arguments are those of
        `PredictStream.submit`.

        Waits while `in_flight` requests are under way. Raises InvalidInput, ClientClosed, and the error that ended the
        stream.
        """
        call = stream_call(model, options)
        arrays = await self._arrays(call, inputs)
        await self._room.acquire()
        request_id = ""
        try:
            if self._ended is not None:
                raise self._ended
            request_id = id_for(call.request_id, self._open, self._numbers)
            message = call.encode(arrays, request_id)
        except BaseException:
            self._room.release()
            raise
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        # The callback reads the error, so asyncio does not log it if nobody awaits the future.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._open[request_id] = (model, future)
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader gets the reason and sets it as the future's error
        return future

    async def close(self) -> None:
        """Accepts no more requests, waits for the answers in flight, and ends the stream."""
        if self._ended is None:
            self._ended = ClientClosed("the stream is closed")
        try:
            async with self._writing:
                await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        await self._reader

    async def cancel(self) -> None:
        """Ends the stream at once; the futures in flight fail."""
        if self._ended is None:
            self._ended = ClientClosed("the stream is cancelled")
        self._call.cancel()
        await self._reader

    async def __aenter__(self) -> AsyncPredictStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.cancel()

    async def _read(self) -> None:
        end: InferdError = Unavailable(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        try:
            async for message in self._connection.messages(self._call):
                request_id, outcome = read_outcome(message, self._model_of)
                _, future = self._open.pop(request_id, ("", None))
                if future is None:
                    if isinstance(outcome, InferdError):
                        self._call.cancel()
                        raise outcome  # a request has failed, but it is unknown which one: end the stream
                    continue
                self._room.release()
                if future.done():
                    continue
                if isinstance(outcome, Prediction):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)
        except InferdError as failure:
            end = failure
        except Exception as failure:
            # If the reader ended without this, all futures in flight would hang.
            end = InvalidResponse(f"the stream cannot be read: {failure!r}")
            self._call.cancel()
        except asyncio.CancelledError:
            end = ClientClosed("the stream is cancelled")
        self._finish(end)

    def _model_of(self, request_id: str) -> str:
        return self._open.get(request_id, ("", None))[0]

    def _finish(self, end: InferdError) -> None:
        if self._connection.closing:
            end = ClientClosed("the client was closed while the stream was open")
        elif self._ended is not None:
            end = self._ended
        self._ended = self._ended or end
        left = list(self._open.items())
        self._open.clear()
        for request_id, (model, future) in left:
            self._room.release()
            if not future.done():
                future.set_exception(of_model(end, model, request_id))
