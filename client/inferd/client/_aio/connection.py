"""The connection of the asyncio client; it does for one event loop what `_sync.connection` does for threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from inferd.client._shared.channel import ChannelPlan
from inferd.client._shared.config import RetryPolicy
from inferd.client._shared.core import (
    PREDICT,
    PREDICT_STREAM,
    Attempts,
    Deadline,
    Metadata,
    authorization,
    request_error,
)
from inferd.client._shared.diagnosis import Diagnosis
from inferd.client._shared.errors import ClientClosed, RequestError
from inferd.client._shared.health import CHECK, WATCH
from inferd.client._shared.rotation import rotation
from inferd.v1 import model_service_pb2_grpc

AsyncMayRepeat = Callable[[RequestError, Deadline], Awaitable[bool]] | None


async def always(error: RequestError, deadline: Deadline) -> bool:
    """Allows every retry: for queries, which do no harm if they are sent twice."""
    return True


class Methods:
    """The methods of the services that the client calls, on one channel."""

    def __init__(self, channel: Any) -> None:
        self.predict = channel.unary_unary(PREDICT, _registered_method=True)
        self.predict_stream = channel.stream_stream(PREDICT_STREAM, _registered_method=True)
        self.check = channel.unary_unary(CHECK)
        self.watch = channel.unary_stream(WATCH)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]


class AsyncConnection:
    """The channels of one client. Belongs to the event loop of its first call; on another one it raises ClientClosed.
    Not thread-safe."""

    def __init__(
        self, plan: ChannelPlan, retry: RetryPolicy, token: str | Callable[[], str] | None, metadata: Metadata
    ) -> None:
        self._plan = plan
        self._retry = retry
        self._token = token
        self._metadata = metadata
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: list[Any] = []
        self._methods: Methods | None = None
        self._closing = False
        self.diagnosis = Diagnosis(plan.target, plan.tls)

    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def methods(self) -> Methods:
        """The methods to call. The first access opens the channels on the running event loop. Raises ClientClosed."""
        if self.closing:
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        if self._methods is None:
            plan = self._plan
            self._channels = [
                grpc.aio.insecure_channel(plan.target, plan.options, plan.compression)
                if plan.credentials is None
                else grpc.aio.secure_channel(plan.target, plan.credentials, plan.options, plan.compression)
                for _ in range(plan.channels)
            ]
            self._loop = loop
            self._methods = Methods(rotation(self._channels))
        elif loop is not self._loop:
            raise ClientClosed(
                "the client belongs to another event loop (and does not survive a fork); make one per loop"
            )
        return self._methods

    def metadata(self, extra: Metadata) -> Metadata | None:
        """The metadata of a call: the client's, the token and `extra`."""
        if self._token is None and not extra:
            return self._metadata or None
        return (*self._metadata, *authorization(self._token), *extra)

    async def invoke(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: Deadline,
        metadata: Metadata = (),
        model: str = "",
        request_id: str = "",
        may_repeat: AsyncMayRepeat = None,
        wait_for_ready: bool | None = None,
    ) -> Any:
        """One call with its retries. Raises RequestError or ClientClosed; cancelling the task cancels the call."""
        if self.closing:
            raise ClientClosed("the client was closed while the call was in flight")
        call = method(
            request, timeout=deadline.remaining(), metadata=self.metadata(metadata), wait_for_ready=wait_for_ready
        )
        try:
            return await call
        except grpc.RpcError as failure:
            error = request_error(failure, model, request_id)
        except asyncio.CancelledError:
            self.not_closed()
            raise
        return await self.again(
            error,
            method,
            request,
            deadline=deadline,
            metadata=metadata,
            may_repeat=may_repeat,
            wait_for_ready=wait_for_ready,
        )

    async def again(
        self,
        error: RequestError,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: Deadline,
        metadata: Metadata,
        may_repeat: AsyncMayRepeat,
        wait_for_ready: bool | None = None,
    ) -> Any:
        """Continues after the first failure: pauses and tries again, or raises the error. Returns the answer."""
        attempts = Attempts(self._retry, deadline)
        while True:
            if self.closing:
                raise ClientClosed("the client was closed while the call was in flight") from error
            pause = attempts.pause_after(error) if may_repeat is not None else None
            if pause is None or (may_repeat is not None and not await may_repeat(error, deadline)):
                raise await self.explained(error)
            await asyncio.sleep(pause)
            if self.closing:
                raise ClientClosed("the client was closed while the call was in flight") from error
            call = method(
                request, timeout=deadline.remaining(), metadata=self.metadata(metadata), wait_for_ready=wait_for_ready
            )
            try:
                return await call
            except grpc.RpcError as failure:
                last = error
                error = request_error(failure, last.model, last.request_id, attempts.count)
                error.__cause__ = last
            except asyncio.CancelledError:
                self.not_closed()
                raise

    async def messages(self, call: Any, model: str = "") -> AsyncIterator[Any]:
        """Yields the messages of a server stream. Raises RequestError and ClientClosed. Leaving the loop ends the
        call."""
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                yield message
        except grpc.RpcError as failure:
            if self.closing:
                raise ClientClosed("the client was closed while the stream was open") from None
            raise await self.explained(request_error(failure, model)) from None
        except asyncio.CancelledError:
            if self._cancelled_by_close():
                raise ClientClosed("the client was closed while the stream was open") from None
            raise
        finally:
            call.cancel()

    async def explained(self, error: RequestError) -> RequestError:
        """See Diagnosis.explained."""
        return await asyncio.to_thread(self.diagnosis.explained, error) if error.accepted is False else error

    def not_closed(self) -> None:
        """Raises ClientClosed if the running task's call was cancelled because the client was closed."""
        if self._cancelled_by_close():
            raise ClientClosed("the client was closed while the call was in flight") from None

    def _cancelled_by_close(self) -> bool:
        """Whether a CancelledError in the running task comes from the closed channel, which cancels its calls, and not
        from a cancellation of the task itself, which must be passed on."""
        task = asyncio.current_task()
        return self._closing and not (task is not None and task.cancelling())

    async def close(self) -> None:
        """Closes the channels; calls in flight raise ClientClosed. May be called again."""
        if not self.closing:
            self._closing = True
            for channel in self._channels:
                await channel.close()
