"""The interface between transports and protocols: bytes in, bytes out. Protocols never use grpcio; transports never
decode a message.

    Transport   accepts connections and calls, looks the method up in a MethodTable, passes the call to its handler
    UnaryCall   a unary RPC: one request, one answer
    StreamCall  a streaming RPC: messages both ways; a server-streaming RPC is a stream with one request

Handlers run on the transport's own thread and must not block: long work runs on other threads, and the call may be
answered from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inferd.server.access.caller import Caller
from inferd.server.errors import Code

# Seconds for which a stopping transport refuses new calls with UNAVAILABLE, which makes clients try another server.
# Then gRPC sends GOAWAY on every connection and closes the ports, while calls in flight go on: a proxy that ignores
# gRPC statuses needs this to find another server. Must be shorter than a client's three attempts take.
REFUSING = 0.1
FLUSH = 2.0  # seconds that answers already given may take to reach the network

Metadata = Sequence[tuple[str, str]]


class UnaryCall(Protocol):
    """One unary call. `reply`, `fail` and `on_cancel` are thread-safe. The first of `reply` and `fail` counts; later
    ones do nothing, and neither does anything after a cancel.

    method      full path, "/package.Service/Method"
    request     the received message
    deadline    monotonic seconds; None where the client set none
    peer        the client's address in gRPC's form: "ipv4:127.0.0.1:5000", "unix:..."
    cancelled   the client has cancelled or disconnected, or its deadline has passed
    """

    @property
    def method(self) -> str: ...
    @property
    def request(self) -> bytes: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def peer(self) -> str: ...
    @property
    def cancelled(self) -> bool: ...

    def metadata(self, key: str) -> str | None:
        """The value of a metadata key (lower case); None where the key is absent. Several values are joined by ", "."""
        ...

    def certificate(self) -> Sequence[str]:
        """Common name and alternative names of the client's verified certificate; empty without one."""
        ...

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Registers `fn`, which is called once when the call is cancelled or cut off because the server stops; at once
        if that has happened before. It is not called after an answer."""
        ...

    def reply(self, message: bytes) -> None: ...

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


class StreamCall(Protocol):
    """One stream. All methods are thread-safe. Attributes as of UnaryCall.

    `read(fn)` asks for one message and calls `fn(message)` on the transport's thread, or `fn(None)` when the client has
    half-closed. Only one read may be outstanding: a slow handler thus slows the client down, and nothing is buffered.
    """

    @property
    def method(self) -> str: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def peer(self) -> str: ...
    @property
    def cancelled(self) -> bool: ...

    def metadata(self, key: str) -> str | None: ...

    def certificate(self) -> Sequence[str]: ...

    def on_cancel(self, fn: Callable[[], None]) -> None: ...

    def read(self, fn: Callable[[bytes | None], None]) -> None: ...

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queues a message and calls `sent` once gRPC has written it. `sent` runs on any thread, must be quick and must
        not raise. Messages are sent in the order of the calls. After the end of the stream or a cancel, the message is
        dropped and `sent` is never called."""
        ...

    @property
    def unsent(self) -> int:
        """Messages queued and not yet written. A producer that can wait should wait while this grows."""
        ...

    def on_drain(self, fn: Callable[[], None]) -> None:
        """Registers `fn`, which is called once, on the transport's thread, when the server begins to stop; at once if
        it is stopping. A later `fn` replaces an earlier one. The handler must then end the stream as soon as it has
        sent its outstanding answers. A stream without `fn` is failed with UNAVAILABLE at once."""
        ...

    def end(self) -> None:
        """Ends the stream with OK after the queued messages have been written."""
        ...

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


def certificate_names(context: Mapping[str | bytes, Sequence[bytes]] | None) -> tuple[str, ...]:
    """The names of the verified client certificate in gRPC's authentication context; empty without a certificate."""
    if not context:
        return ()
    found = {key.decode() if isinstance(key, bytes) else key: values for key, values in context.items()}
    names = (*found.get("x509_common_name", ()), *found.get("x509_subject_alternative_name", ()))
    return tuple(dict.fromkeys(name.decode("utf-8", "replace") for name in names if name))


UnaryHandler = Callable[[UnaryCall], None]
CallsHandler = Callable[[Sequence[UnaryCall], float], None]
"""Handles calls that arrived together, and the monotonic time at which the first of them arrived. The completion-queue
transport passes the calls of one turn of its loop; the public transport passes lists of one call."""
StreamHandler = Callable[[StreamCall], None]


def for_each_call(handler: UnaryHandler) -> CallsHandler:
    """A handler of lists that passes the calls to `handler` one by one."""

    def handle(calls: Sequence[UnaryCall], _arrived_at: float) -> None:
        for call in calls:
            handler(call)

    return handle


@dataclass(frozen=True, slots=True)
class MethodTable:
    """Handlers by full method path.

    exempt    methods that are served even when the bounds on calls and bytes are reached, and while the server drains:
              health checks must not fail because the server is busy
    gathered  methods whose calls wait for the end of a turn and are then passed to the handler in one list, in order
              of arrival; methods with the same handler share its list
    refused   called with method and code for every call that the transport itself refuses, before any handler sees it
    admitted  handlers of the unary methods for calls whose caller was admitted before (REST)
    """

    unary: Mapping[str, CallsHandler]
    stream: Mapping[str, StreamHandler]
    exempt: frozenset[str] = field(default_factory=frozenset)
    gathered: frozenset[str] = field(default_factory=frozenset)
    refused: Callable[[str, Code], None] = lambda _method, _code: None
    admitted: Mapping[str, Callable[[UnaryCall, Caller], None]] = field(default_factory=dict)


class Transport(Protocol):
    """A gRPC server. Started once and stopped once."""

    def start(self) -> Sequence[str]:
        """Binds every address and accepts calls. Returns the bound addresses, with the chosen port in place of port 0.
        Raises OSError."""
        ...

    def stop(self, grace: float) -> bool:
        """Refuses new calls, waits up to `grace` seconds for the calls in flight, cuts off the rest, and blocks until
        the server has stopped.

        Returns whether all calls in flight finished within `grace`. Thread-safe; later calls wait for the first.
        """
        ...

    @property
    def open_calls(self) -> int:
        """Calls accepted and not yet answered, streams included."""
        ...
