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
from inferd.client._shared.values import Inputs
from inferd.client._sync.admin import AdminCalls
from inferd.client._sync.connection import Connection, PendingPrediction
from inferd.client._sync.describe import Describer
from inferd.client._sync.stream import PredictStream
from inferd.client._sync.waiting import ask_ready, await_ready
from inferd.client._sync.window import in_flight_window


class Client(AdminCalls):
    """A client of one inferd server, or of several equal servers.

        with Client("localhost:8001") as client:
            answer = client.predict("digits", {"image": array}, timeout=5.0)
            answer["probabilities"], answer.version

    Thread-safe: all threads of a process can share one client and have calls in flight at the same time. The client
    connects at the first call and reconnects by itself. It does not survive a fork: in the child process, every method
    raises ClientClosed. So does every method after `close` or after the `with` block.

    address         "host:port", "host" (port 8001), "[::1]:8001", "unix:/path", several ("a:8001,b:8001" or a list),
                    or gRPC's own form "dns:///name:port". If a name has several addresses, all are used.
    timeout         seconds for calls that set no timeout themselves; math.inf: no limit. Admin calls: 300 s
    retry           when a failed request is sent again; NO_RETRIES: never
    tls             Tls(...) for an encrypted connection; None: no encryption
    keepalive       pings that detect a vanished server; None: no pings
    token           sent as `authorization: Bearer`; a function is called for every call
    token_file      a file with the token; it is read again when it changes
    allow_plaintext_token
                    True: the token may be sent to another machine without TLS, which is otherwise refused
    metadata        gRPC metadata that is sent with every call
    load_balancing  "round_robin": each request goes to the next server; "pick_first": one server until it fails
    health_check    True: servers that say that they are not ready get no requests (round_robin only); None: the same,
                    but only if `address` lists several servers
    compression     compression of requests: "gzip" or "deflate"; tensors seldom become smaller
    options         gRPC channel arguments; they override those of the client
    channels        number of connections to each server, which calls use in turn. A server with several workers
                    (server.workers) gives each connection to one worker

    Raises InvalidInput for settings that cannot be used.
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

    def __repr__(self) -> str:
        where = self.address if isinstance(self.address, str) else ", ".join(self.address)
        return f"<Client of {where}{', closed' if self._connection.closing else ''}>"

    # -- predictions

    def predict(
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
        """Runs one request and waits for its answer.

        inputs         a mapping of input names to arrays. Arrays are sent with their own element type, lists and plain
                       values with that of the signature (the client then fetches the model's metadata once). For a
                       model with one input, the value alone is enough. Shapes include the batch axis
        version,label  the version that answers, by number or by label; without both, the newest available version
        signature      the signature to call; None: the model's default signature
        outputs        the names of the wanted outputs; None: all outputs
        timeout        seconds for the call including its retries; None: the client's timeout
        request_id     returned with the answer and written to the server's logs
        priority       1 is served before 2, and so on; 0: the model's default priority
        queue_timeout  seconds that the request may wait in the server's queue; None: until the timeout
        metadata       gRPC metadata, sent in addition to the client's
        stateful       whether the model keeps state between requests; then a request that the model may have received
                       is never sent again. None: the model's metadata decides, if a retry comes into question

        Raises InvalidInput, RequestError or one of its subclasses, InvalidResponse, ClientClosed.
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
        # The first attempt is made here, so that a successful call passes through one function less.
        try:
            answer = self._predict(request, timeout=deadline.timeout, metadata=connection.metadata(extra))
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
        """`predict` for inputs whose element types or name come from the model's metadata."""
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
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> dict[str, Array]:
        """The arrays that `predict` would send for these inputs. To convert lists once, pass the result to many calls.
        Raises as `predict`."""
        return self._array_inputs(Call(model, version=version, label=label, signature=signature), inputs)

    def submit(self, model: str, inputs: Inputs, **options: Unpack[CallOptions]) -> Future[Prediction]:
        """Sends one request without waiting. Returns a Future of the prediction; its `cancel` cancels the request on
        the server.

        The arguments are those of `predict`. Blocks only if the model's metadata is needed and not known yet. Callbacks
        of the future run on gRPC's thread and must be short. Raises InvalidInput and ClientClosed; all later errors
        are in the future.
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
        inputs: Iterable[Inputs],
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
        inputs: Iterable[Inputs],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["return"],
        **options: Unpack[ManyOptions],
    ) -> Iterator[Prediction | InferdError]: ...

    def predict_many(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        in_flight: int = 32,
        ordered: bool = True,
        errors: Literal["raise", "return"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> Iterator[Prediction] | Iterator[Prediction | InferdError]:
        """Sends each item of `inputs` as a request of its own, with up to `in_flight` requests under way at the same
        time, and yields the predictions.

        The predictions are in the order of the items, or, with `ordered=False`, in the order in which they arrive; the
        `request_id` of each is the item's position as text. The next item is taken only when there is room for its
        request, so `inputs` may be endless. If a request fails, its error is raised in the place of its prediction and
        the iteration ends; with `errors="return"` the error is yielded and the iteration goes on. The other arguments
        are those of `predict`; `timeout` holds for each item. Leaving the loop cancels the requests in flight.
        """
        if in_flight < 1:
            raise InvalidInput(f"in_flight is {in_flight}; expected 1 or more")
        if errors not in ("raise", "return"):
            raise InvalidInput(f"errors is {errors!r}; expected 'raise' or 'return'")
        self._connection.check()

        def send(position: int, item: Inputs) -> Future[Prediction]:
            return self.submit(model, item, **options, request_id=str(position))

        return in_flight_window(send, inputs, in_flight, ordered, errors == "return")

    def stream(self, *, in_flight: int = 256, metadata: MetadataLike | None = None) -> PredictStream:
        """Opens a stream for many requests, at most `in_flight` of them under way at the same time; see
        PredictStream. Raises InvalidInput, ClientClosed."""
        self._connection.check()
        return PredictStream(
            self._connection, self._predict_stream, in_flight, metadata_pairs(metadata), self._array_inputs
        )

    # -- health

    def ready(self, model: str | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server is ready; with `model`, whether this model has an available version. False if the server
        cannot be reached.

        Raises RequestError if the question cannot be answered: wrong credentials, or a server without a health service.
        """
        deadline = Deadline(self.timeout if timeout is None else timeout)
        try:
            return ask_ready(self._connection, self._check_health, model or "", deadline)
        except (NotFound, Unavailable, DeadlineExceeded):
            return False

    def wait_ready(self, timeout: float | None = None, model: str | None = None) -> None:
        """Waits until the server, or this model, is ready. The server need not be running yet. Raises DeadlineExceeded
        after `timeout` seconds (None: the client's timeout), with the last reason; RequestError if waiting cannot
        help."""
        deadline = Deadline(self.timeout if timeout is None else timeout)
        await_ready(self._connection, self._check_health, self._watch_health, model or "", deadline)

    # -- closing

    def close(self) -> None:
        """Closes the connections; calls in flight raise ClientClosed. May be called again."""
        self._connection.close()

    def __enter__(self) -> Client:
        self._connection.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- helpers

    def _array_inputs(self, call: Call, inputs: object) -> dict[str, Array]:
        arrays = plain_arrays(inputs)
        if arrays is not None:
            return arrays
        return described_arrays(inputs, self._describer.describe(call, Deadline(self.timeout)), call.signature)

    def _rebuild(
        self, call: Call, inputs: object, used: ModelMetadata, deadline: Deadline, error: RequestError
    ) -> bytes | None:
        return self._describer.rebuilt(call, inputs, used, deadline)
