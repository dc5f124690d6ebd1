"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Literal, Unpack, overload

import grpc

from inferd.client._shared.channel import Compression, LoadBalancing, plan_channel
from inferd.client._shared.config import DEFAULT_ADDRESS, DEFAULT_TIMEOUT, KeepAlive, RetryPolicy, Tls
from inferd.client._shared.core import (
    PREDICT,
    PREDICT_STREAM,
    Call,
    Deadline,
    Metadata,
    MetadataLike,
    decode,
    metadata_pairs,
)
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
from inferd.client._shared.health import CHECK, WATCH
from inferd.client._shared.inputs import described_arrays, plain_arrays
from inferd.client._shared.models import ModelMetadata
from inferd.client._shared.options import CallOptions, ManyOptions
from inferd.client._shared.prediction import Array, Prediction
from inferd.client._sync.admin import AdminCalls
from inferd.client._sync.connection import Connection, PendingPrediction
from inferd.client._sync.describe import Describer
from inferd.client._sync.stream import PredictStream
from inferd.client._sync.waiting import ask_ready, await_ready
from inferd.client._sync.window import in_flight_window


class Client(AdminCalls):
    """A client of one inferd server, or of several equal ones behind a name or a list.

        with Client("localhost:8001") as client:
            answer = client.predict("digits", {"image": array}, timeout=5.0)
            answer["probabilities"], answer.version

    Thread-safe: share one between all threads of a process; every thread may have calls in flight. Connects with the
    first call, and again by itself. Not fork-safe: one made before a fork refuses to work in the child (ClientClosed).
    After `close`, or the end of the `with`, every method raises ClientClosed.

    address         "host:port", "host" (port 8001), "[::1]:8001", "unix:/path", several ("a:8001,b:8001" or a list),
                    or gRPC's own "dns:///name:port". All addresses behind a name are used.
    timeout         seconds for a call that gives none itself; math.inf: no limit. Admin calls have 300 s by default.
    retry           when a failed request is sent again; NO_RETRIES: never
    tls             Tls(...) for an encrypted connection
    keepalive       pings that notice a vanished server; None: none
    token           sent as `authorization: Bearer`; a function is asked for every call
    token_file      a file with the token, read again when it changes
    allow_plaintext_token
                    a token may go to another machine without TLS; refused (InvalidInput) unless this is said
    metadata        sent with every call
    load_balancing  "round_robin": every request to the next server; "pick_first": one server until it fails
    health_check    leave out servers that say they are not ready (round_robin); None: only of a list
    compression     of requests: "gzip" or "deflate"; tensors seldom shrink
    options         gRPC channel arguments that override those set here
    channels        connections to each server, which calls take in turn; a server with several workers
                    (server.workers) gives each connection to one of them
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
        super().__init__(Connection(plan, retry or RetryPolicy(), source, pairs))
        channel = self._connection.channel
        # `_registered_method` is what generated stubs pass: it saves looking the path up in every call.
        self._predict = channel.unary_unary(PREDICT, _registered_method=True)
        self._predict_stream = channel.stream_stream(PREDICT_STREAM, _registered_method=True)
        self._check_health = channel.unary_unary(CHECK)
        self._watch_health = channel.unary_stream(WATCH)
        self._describer = Describer(self._connection, self._stub.GetModelMetadata)

    # -- predictions

    def predict(
        self,
        model: str,
        inputs: object,
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
        """Runs one request and waits for its answer.

        inputs         a mapping of name to array; lists and plain values take the element type that the signature says
                       (the model's metadata is asked for once); for a model with one input, the array alone is enough
        version,label  which version answers; neither: the newest available one
        signature      which way to call the model; None: its default one
        outputs        the outputs wanted, None: all
        timeout        seconds for everything, retries included; None: the client's
        request_id     comes back in the answer and stands in the server's logs
        priority       1 is served before 2, and so on; 0: the model's default
        queue_timeout  seconds that the request may wait in the server's queue; None: until the timeout
        stateful       whether the model keeps state between requests, so that a request that it may have taken is never
                       sent again; None: the model's metadata decides, when it comes to that

        Raises InvalidInput, RequestError (see the tree of errors), InvalidResponse, ClientClosed.
        """
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
        arrays = plain_arrays(inputs)
        if arrays is None:
            return self._predict_described(call, inputs, deadline, extra, stateful)
        request = call.encode(arrays)
        connection = self._connection
        connection.check()
        # The first attempt is made here: a layer less for the call that goes well.
        try:
            answer = self._predict(request, timeout=deadline.whole, metadata=connection.metadata(extra))
        except (grpc.RpcError, ValueError) as failure:
            error = connection.failed(failure, model, request_id)
        else:
            return decode(answer)
        may_repeat = partial(self._describer.may_repeat, call, stateful)
        return decode(
            connection.again(error, self._predict, request, deadline=deadline, metadata=extra, may_repeat=may_repeat)
        )

    def _predict_described(
        self, call: Call, inputs: object, deadline: Deadline, extra: Metadata, stateful: bool | None
    ) -> Prediction:
        """`predict` with inputs that take their element types or their name from the model's metadata."""
        invoke = partial(
            self._connection.invoke,
            self._predict,
            deadline=deadline,
            metadata=extra,
            model=call.model,
            request_id=call.request_id,
            may_repeat=partial(self._describer.may_repeat, call, stateful),
        )
        used = self._describer.describe(call, deadline)
        request = call.encode(described_arrays(inputs, used, call.signature))
        try:
            return decode(invoke(request))
        except InvalidArgument:
            rebuilt = self._describer.rebuilt(call, inputs, used, deadline) if used is not None else None
            if rebuilt is None:
                raise
        return decode(invoke(rebuilt))

    def as_arrays(
        self,
        model: str,
        inputs: object,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> dict[str, Array]:
        """The arrays that `predict` would send for these inputs, to make them once for many requests."""
        return self._array_inputs(Call(model, version=version, label=label, signature=signature), inputs)

    def submit(self, model: str, inputs: object, **options: Unpack[CallOptions]) -> Future[Prediction]:
        """`predict` without waiting: gives a Future of the prediction; its `cancel` cancels the request on the server.

        Arguments as `predict`. Blocks only where the metadata is needed and not known yet. Callbacks of the future run
        on gRPC's thread and must be short.
        """
        timeout = options.pop("timeout", None)
        extra = metadata_pairs(options.pop("metadata", None))
        stateful = options.pop("stateful", None)
        call = Call(model, **options)  # type: ignore[misc]
        deadline = Deadline(self.timeout if timeout is None else timeout)
        arrays = plain_arrays(inputs)
        rebuild: Callable[[RequestError], bytes | None] | None = None
        if arrays is None:
            used = self._describer.describe(call, deadline)
            arrays = described_arrays(inputs, used, call.signature)
            if used is not None:
                rebuild = partial(self._rebuild, call, inputs, used, deadline)
        pending = PendingPrediction(
            model, call.request_id, deadline, partial(self._describer.may_repeat, call, stateful), rebuild
        )
        self._connection.start(pending, self._predict, call.encode(arrays), extra)
        return pending

    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["raise"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["return"],
        **options: Unpack[ManyOptions],
    ) -> Iterator[Prediction | InferdError]: ...

    def predict_many(
        self,
        model: str,
        inputs: Iterable[object],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["raise", "return"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> Iterator[Prediction] | Iterator[Prediction | InferdError]:
        """Sends every item of `inputs` as a request of its own, with up to `in_flight` of them under way at once.

        Yields the predictions in the order of the items, or as they come (`ordered=False`); the `request_id` of each is
        the item's position. Items are drawn only as there is room: an endless source is fine. A failure is raised where
        its prediction would stand, and ends it all; `errors="return"` yields the error instead and goes on. Other
        arguments as `predict`; `timeout` holds for each item. Leaving the loop cancels what is in flight.
        """
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}; expected 1 or more")
        if errors not in ("raise", "return"):
            raise InvalidInput(f"errors is {errors!r}; expected 'raise' or 'return'")
        self._connection.check()

        def send(position: int, item: object) -> Future[Prediction]:
            return self.submit(model, item, **options, request_id=str(position))

        return in_flight_window(send, inputs, in_flight, ordered, errors == "return")

    def stream(self, *, in_flight: int = 256, metadata: MetadataLike | None = None) -> PredictStream:
        """Many requests over one stream; see PredictStream."""
        self._connection.check()
        return PredictStream(
            self._connection, self._predict_stream, in_flight, metadata_pairs(metadata), self._array_inputs
        )

    # -- health

    def ready(self, model: str | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server is ready, or whether this model has a version that answers. An unreachable server is not.

        Raises RequestError for anything that does not answer the question (credentials, no health service).
        """
        deadline = Deadline(self.timeout if timeout is None else timeout)
        try:
            return ask_ready(self._connection, self._check_health, model or "", deadline)
        except (NotFound, Unavailable, DeadlineExceeded):
            return False

    def wait_ready(self, timeout: float | None = None, model: str | None = None) -> None:
        """Waits until the server, or this model, is ready. The server need not run yet. Raises DeadlineExceeded."""
        deadline = Deadline(self.timeout if timeout is None else timeout)
        await_ready(self._connection, self._check_health, self._watch_health, model or "", deadline)

    # -- life

    def close(self) -> None:
        """Ends the connection; calls in flight end with ClientClosed. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Client:
        self._connection.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what the above share

    def _array_inputs(self, call: Call, inputs: object) -> dict[str, Array]:
        arrays = plain_arrays(inputs)
        if arrays is not None:
            return arrays
        return described_arrays(inputs, self._describer.describe(call, Deadline(self.timeout)), call.signature)

    def _rebuild(
        self, call: Call, inputs: object, used: ModelMetadata, deadline: Deadline, error: RequestError
    ) -> bytes | None:
        return self._describer.rebuilt(call, inputs, used, deadline)
