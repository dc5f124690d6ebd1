"""The asyncio client: the methods of `Client`, with `await`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Unpack, overload

import grpc

from inferd.client._aio.admin import AsyncAdminCalls
from inferd.client._aio.connection import AsyncConnection, always
from inferd.client._aio.describe import AsyncDescriber
from inferd.client._aio.stream import AsyncPredictStream
from inferd.client._aio.window import async_in_flight_window
from inferd.client._shared.channel import Compression, LoadBalancing, plan_channel
from inferd.client._shared.config import DEFAULT_ADDRESS, DEFAULT_TIMEOUT, KeepAlive, RetryPolicy, Tls
from inferd.client._shared.core import Call, Deadline, Metadata, MetadataLike, decode, metadata_pairs, request_error
from inferd.client._shared.credentials import token_source
from inferd.client._shared.errors import (
    DeadlineExceeded,
    InferdError,
    InvalidArgument,
    InvalidInput,
    NotFound,
    RequestError,
    Unavailable,
)
from inferd.client._shared.health import NO_ANSWER, PAUSE, health_request, is_serving, not_ready
from inferd.client._shared.inputs import described_arrays, plain_arrays
from inferd.client._shared.options import ManyOptions
from inferd.client._shared.prediction import Array, Prediction
from inferd.client._shared.values import Inputs


class AsyncClient(AsyncAdminCalls):
    """A client of one inferd server, or of several equal servers, for asyncio.

        async with AsyncClient("localhost:8001") as client:
            answer = await client.predict("digits", {"image": array}, timeout=5.0)

    Belongs to the event loop of its first call; all tasks of that loop can use it at the same time. On another event
    loop, after `close` and in a forked child process, its methods raise ClientClosed. Cancelling a task cancels its
    request on the server. The arguments are those of `Client`.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        tls: Tls | None = None,
        keepalive: KeepAlive | None = KeepAlive(),  # noqa: B008 - frozen
        token: str | Callable[[], str] | None = None,
        metadata: MetadataLike | None = None,
        load_balancing: LoadBalancing = "round_robin",
        health_check: bool | None = None,
        compression: Compression | None = None,
        options: Mapping[str, Any] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        allow_plaintext_token: bool = False,
        channels: int = 1,
    ) -> None:
        plan = plan_channel(
            address,
            tls=tls,
            keepalive=keepalive,
            load_balancing=load_balancing,
            health_check=health_check,
            compression=compression,
            options=options or {},
            channels=channels,
        )
        Deadline(timeout)
        pairs = metadata_pairs(metadata)
        source = token_source(token, token_file, plan, pairs, allow_plaintext=allow_plaintext_token)
        self.address = address
        self.timeout = timeout
        super().__init__(AsyncConnection(plan, retry or RetryPolicy(), source, pairs))
        self._describer = AsyncDescriber(self._connection)

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: float | None = None,
        request_id: str = "",
        priority: int = 0,
        queue_timeout: float | None = None,
        metadata: MetadataLike | None = None,
        stateful: bool | None = None,
    ) -> Prediction:
        """Runs one request and waits for its answer. Arguments and errors are those of `Client.predict`."""
        call = Call(
            model,
            version=version,
            label=label,
            signature=signature,
            outputs=outputs,
            request_id=request_id,
            priority=priority,
            queue_timeout=queue_timeout,
        )
        deadline = Deadline(self.timeout if timeout is None else timeout)
        extra = metadata_pairs(metadata) if metadata else ()
        connection = self._connection
        method = connection.methods.predict
        arrays = plain_arrays(inputs)
        if arrays is None:
            return await self._predict_described(call, inputs, deadline, extra, stateful)
        request = call.encode(arrays)
        # The first attempt is made here, so that a successful call passes through one coroutine less.
        try:
            answer = await method(request, timeout=deadline.timeout, metadata=connection.metadata(extra))
        except grpc.RpcError as failure:
            error = request_error(failure, model, request_id)
        except asyncio.CancelledError:
            connection.not_closed()
            raise
        else:
            return decode(answer)
        may_repeat = partial(self._describer.may_repeat, call, stateful)
        return decode(
            await connection.again(error, method, request, deadline=deadline, metadata=extra, may_repeat=may_repeat)
        )

    async def _predict_described(
        self, call: Call, inputs: object, deadline: Deadline, extra: Metadata, stateful: bool | None
    ) -> Prediction:
        """`predict` for inputs whose element types or name come from the model's metadata."""
        invoke = partial(
            self._connection.invoke,
            self._connection.methods.predict,
            deadline=deadline,
            metadata=extra,
            model=call.model,
            request_id=call.request_id,
            may_repeat=partial(self._describer.may_repeat, call, stateful),
        )
        used = await self._describer.describe(call, deadline)
        request = call.encode(described_arrays(inputs, used, call.signature))
        try:
            return decode(await invoke(request))
        except InvalidArgument:
            rebuilt = await self._describer.rebuilt(call, inputs, used, deadline) if used is not None else None
            if rebuilt is None:
                raise
        return decode(await invoke(rebuilt))

    async def as_arrays(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> dict[str, Array]:
        """The arrays that `predict` would send for these inputs. To convert lists once, pass the result to many calls.
        Raises as `predict`."""
        return await self._array_inputs(Call(model, version=version, label=label, signature=signature), inputs)

    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["raise"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> AsyncIterator[Prediction]: ...

    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["return"],
        **options: Unpack[ManyOptions],
    ) -> AsyncIterator[Prediction | InferdError]: ...

    def predict_many(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["raise", "return"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> AsyncIterator[Prediction] | AsyncIterator[Prediction | InferdError]:
        """Sends each item of `inputs` as a request of its own, with up to `in_flight` requests under way at the same
        time, and yields the predictions; see `Client.predict_many`.

        `inputs` may also be an async iterable. If the loop is left early, the requests in flight are cancelled when the
        generator is closed: use `contextlib.aclosing`, or asyncio closes it at some later time.
        """
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}; expected 1 or more")
        if errors not in ("raise", "return"):
            raise InvalidInput(f"errors is {errors!r}; expected 'raise' or 'return'")

        async def send(position: int, item: Inputs) -> Prediction:
            return await self.predict(model, item, **options, request_id=str(position))

        return async_in_flight_window(send, inputs, in_flight, ordered, errors == "return")

    def stream(self, *, in_flight: int = 256, metadata: MetadataLike | None = None) -> AsyncPredictStream:
        """Opens a stream for many requests, at most `in_flight` of them under way at the same time; see
        AsyncPredictStream. Must be called on the client's event loop. Raises InvalidInput, ClientClosed."""
        return AsyncPredictStream(self._connection, in_flight, metadata_pairs(metadata), self._array_inputs)

    async def ready(self, model: str | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server, or this model, is ready; see `Client.ready`."""
        try:
            return await self._ask_ready(model or "", Deadline(self.timeout if timeout is None else timeout))
        except (NotFound, Unavailable, DeadlineExceeded):
            return False

    async def wait_ready(self, timeout: float | None = None, model: str | None = None) -> None:
        """Waits until the server, or this model, is ready; see `Client.wait_ready`."""
        deadline = Deadline(self.timeout if timeout is None else timeout)
        service, last, watching = model or "", NO_ANSWER, True
        while True:
            try:
                if watching:
                    call = self._connection.methods.watch(
                        health_request(service),
                        timeout=deadline.remaining(),
                        metadata=self._connection.metadata(()),
                        wait_for_ready=True,
                    )
                    async for message in self._connection.messages(call, service):
                        if is_serving(message):
                            return
                        last = "the server says that it is not ready"
                elif await self._ask_ready(service, deadline):
                    return
            except RequestError as error:
                if error.code is grpc.StatusCode.UNIMPLEMENTED and watching:
                    watching = False
                elif not isinstance(error, NotFound | Unavailable | DeadlineExceeded):
                    raise
                elif not isinstance(error, DeadlineExceeded):
                    last = error.message
            remaining = deadline.remaining()
            if remaining is not None and remaining <= PAUSE:
                if last == NO_ANSWER:
                    last = await asyncio.to_thread(self._connection.diagnosis.unreached) or last
                raise not_ready(service, last)
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Closes the connections; calls in flight raise ClientClosed. May be called again."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        _ = self._connection.methods
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask_ready(self, service: str, deadline: Deadline) -> bool:
        answer = await self._connection.invoke(
            self._connection.methods.check,
            health_request(service),
            deadline=deadline,
            model=service,
            may_repeat=always,
        )
        return is_serving(answer)

    async def _array_inputs(self, call: Call, inputs: object) -> dict[str, Array]:
        arrays = plain_arrays(inputs)
        if arrays is not None:
            return arrays
        used = await self._describer.describe(call, Deadline(self.timeout))
        return described_arrays(inputs, used, call.signature)
