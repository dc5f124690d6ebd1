"""The seam between gRPC and the services: bytes in, bytes out. No service sees grpcio; no transport sees a message.

    Transport   accepts connections and calls, looks the method up in a MethodTable, hands the call to its handler
    UnaryCall   one request, one answer: every unary RPC, hot or not
    StreamCall  messages both ways: server-streaming RPCs are streams with one request

Handlers run on the transport's own thread and must not block: what takes long is started elsewhere and answers later,
from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inferd.server.access.caller import Caller
from inferd.server.errors import Code

# Seconds for which a transport that stops refuses new calls itself, with a status that clients repeat elsewhere. Then
# its core tells every connection to go and closes the ports, while calls in flight go on: a proxy that does not look
# into gRPC's statuses finds another server only so. It must be shorter than a client's patience of three attempts.
REFUSING = 0.1
FLUSH = 2.0  # seconds that answers already given may take to reach the network

Metadata = Sequence[tuple[str, str]]


class UnaryCall(Protocol):
    """One call. `reply`, `fail` and `on_cancel` are thread-safe; the first of reply / fail counts, later ones and those
    after a cancel do nothing.

    method      full path, "/package.Service/Method"
    request     the received message
    deadline    monotonic seconds, None where the client set none
    peer        grpc's form: "ipv4:127.0.0.1:5000", "unix:..."
    cancelled   the client has cancelled, vanished, or its deadline has passed
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
        """The value of a metadata key (lower case), None where it is absent."""
        ...

    def certificate(self) -> Sequence[str]:
        """Common name and alternative names of the client's verified certificate; none without one."""
        ...

    def on_cancel(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once when the call is cancelled, or cut off because the server stops; at once if it already is.
        Not called after an answer."""
        ...

    def reply(self, message: bytes) -> None: ...

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


class StreamCall(Protocol):
    """One stream. All methods are thread-safe.

    Reading is by request: `read(fn)` asks for one message and calls `fn(message)` on the transport's thread, `fn(None)`
    when the client has sent its last. One read at a time: so a slow handler slows the client and buffers nothing.
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
        """Queues a message, in order, and calls `sent` (on any thread, quick, must not raise) once it has been handed
        to the network. Does nothing after the end or a cancel; then `sent` is never called."""
        ...

    @property
    def unsent(self) -> int:
        """Messages queued and not yet written: a producer that can wait should, when this grows."""
        ...

    def on_drain(self, fn: Callable[[], None]) -> None:
        """Calls `fn` once, on the transport's thread, when the server begins to stop; at once if it already does. The
        last `fn` given counts. The handler then ends the stream as soon as it has sent what it owes; a stream without
        `on_drain` is failed with UNAVAILABLE right away."""
        ...

    def end(self) -> None:
        """Ends the stream with OK after what is queued has been written."""
        ...

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None: ...


def certificate_names(context: Mapping[str | bytes, Sequence[bytes]] | None) -> tuple[str, ...]:
    """The names in the core's account of how a connection was authenticated: the verified client's certificate."""
    if not context:
        return ()
    found = {key.decode() if isinstance(key, bytes) else key: values for key, values in context.items()}
    names = (*found.get("x509_common_name", ()), *found.get("x509_subject_alternative_name", ()))
    return tuple(dict.fromkeys(name.decode("utf-8", "replace") for name in names if name))


UnaryHandler = Callable[[UnaryCall], None]
CallsHandler = Callable[[Sequence[UnaryCall], float], None]
"""Takes calls that came together, the first of them at this monotonic time. A transport with turns hands over what one
turn has brought, any other lists of one."""
StreamHandler = Callable[[StreamCall], None]


def each(handler: UnaryHandler) -> CallsHandler:
    """A handler of lists that hands over call by call."""

    def handle(calls: Sequence[UnaryCall], _arrived_at: float) -> None:
        for call in calls:
            handler(call)

    return handle


@dataclass(frozen=True, slots=True)
class MethodTable:
    """Handlers by full method path.

    exempt    methods that are taken even when the bounds on calls and bytes are reached, and while the server drains:
              health must not fail because the server is busy
    gathered  methods whose calls wait for the end of a turn, so that those that came together are handed over together,
              in the order of their arrival; methods with one handler share its list
    refused   told of every call that the transport itself turned away, before any handler saw it
    admitted  the unary methods for calls whose caller was admitted before (REST)
    """

    unary: Mapping[str, CallsHandler]
    stream: Mapping[str, StreamHandler]
    exempt: frozenset[str] = field(default_factory=frozenset)
    gathered: frozenset[str] = field(default_factory=frozenset)
    refused: Callable[[str, Code], None] = lambda _method, _code: None
    admitted: Mapping[str, Callable[[UnaryCall, Caller], None]] = field(default_factory=dict)


class Transport(Protocol):
    """A gRPC server. Made with its table, addresses and limits; used once."""

    def start(self) -> Sequence[str]:
        """Binds every address and accepts calls. Gives the bound addresses (a port 0 is filled in). Raises OSError."""
        ...

    def stop(self, grace: float) -> bool:
        """Takes no new calls, waits up to `grace` seconds for those in flight, cuts off the rest; blocks until done.

        Gives whether everything in flight had finished. Thread-safe; later calls wait for the first.
        """
        ...

    @property
    def open_calls(self) -> int:
        """Calls accepted and not yet answered, streams included."""
        ...
