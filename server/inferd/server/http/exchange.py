"""One REST request from its first byte to its response: body, bounds, deadline, and whether the client is still there.

The bytes that it holds count towards the server's in-flight bounds, like those of gRPC calls. When the client
disconnects, the work that was started for it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic
from types import TracebackType
from typing import Any, Final, TypeVar

from inferd.server.access.caller import Caller
from inferd.server.access.rules import ANYBODY
from inferd.server.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from inferd.server.http.admission import CERTIFICATE, joined, peer_of
from inferd.server.http.content_coding import TooLong, inflate
from inferd.server.http.known_heads import text_of
from inferd.server.http.workers import BodyWorkers
from inferd.server.inference.inflight import InflightBounds

_T = TypeVar("_T")
_SHORT: Final = 64 * 2**10  # bytes of a body whose values are not counted
# Bytes that a value of JSON takes once it is read: of a list or an object, of half a string (each has two quotes), of a
# number, which is read in pieces.
_VALUES: Final = ((b"[", 72), (b"{", 72), (b'"', 36), (b",", 12))
GRACE: Final = 0.1  # seconds to wait past the deadline, for the called code to report the deadline itself
_STALL: Final = 10.0  # the most seconds between two pieces of a body
_CROWDED: Final = 1.0  # likewise, while more than half of inflight.bytes is held
_CROWDED_RATE: Final = 2**20  # bytes of a body that must come in a second then


class ClientGone(Exception):
    """The client has disconnected: nobody reads a response."""


class BodyRefused(InvalidRequest):
    """The body is refused. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CallAdmission:
    """Counts the requests in progress and, once closed, admits no new ones. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._active = 0
        self.closed = False
        self.drained = Event()  # set once `close` was called and no request is in progress

    def enter(self) -> bool:
        """Admits a request: True, and `leave` must follow. False once closed."""
        with self._lock:
            if not self.closed:
                self._active += 1
            return not self.closed

    def leave(self) -> None:
        """Ends a request that `enter` has admitted."""
        with self._lock:
            self._active -= 1
            if self.closed and not self._active:
                self.drained.set()

    def close(self) -> None:
        """Admits no requests from now on."""
        with self._lock:
            self.closed = True
            if not self._active:
                self.drained.set()


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """The bounds that all exchanges of a server share. `max_body` is in bytes, `timeout` in seconds."""

    inflight: InflightBounds
    admission: CallAdmission
    workers: BodyWorkers
    max_body: int
    timeout: float

    def enter(self) -> None:
        """Admits a request; `leave` must follow. Raises Unavailable while the server shuts down, Overloaded when too
        much is in flight."""
        if not self.admission.enter():
            raise Unavailable("the server is shutting down")
        if not self.inflight.enter():
            self.admission.leave()
            raise Overloaded(self.inflight.full)

    def hold(self, nbytes: int) -> None:
        """Counts memory held for a request that has entered. Raises Overloaded."""
        if not self.inflight.hold(nbytes):
            raise Overloaded(self.inflight.full)

    def leave(self, nbytes: int) -> None:
        """Ends a request that holds so many bytes."""
        self.inflight.leave(nbytes)
        self.admission.leave()

    def not_answered(self) -> DeadlineExceeded:
        """The error of a request that was not answered in time."""
        return DeadlineExceeded(f"not answered within {self.timeout:g} s (http.timeout)")


class HttpExchange:
    """An async context manager, used on the event loop. Entering admits the request; it raises Unavailable while the
    server shuts down, Overloaded when too much is in flight."""

    def __init__(self, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], bounds: BodyBounds) -> None:
        self.started = monotonic()
        self.deadline: float | None = self.started + bounds.timeout
        self.headers = joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        self.peer = peer_of(scope.get("client"))
        self._certificate: Sequence[str] = scope.get("state", {}).get(CERTIFICATE, ())
        self.counted = False  # whether the code that was called counts this request in the metrics
        self.caller: Caller = ANYBODY  # until the error boundary has admitted the caller
        self.nbytes = 0
        self._receive = receive
        self._bounds = bounds

    async def __aenter__(self) -> HttpExchange:
        self._bounds.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bounds.leave(self.nbytes)

    def metadata(self, key: str) -> str | None:
        """A header by its lower-case name, under the name that gRPC calls have for it: the access checks take both."""
        return self.headers.get(key)

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate, for the authority."""
        return self._certificate

    def remove_deadline(self) -> None:
        """Lets the request take any time: for loads and unloads, which must not be cut off by `http.timeout`."""
        self.deadline = None

    def hold(self, nbytes: int) -> None:
        """Counts memory held for this request, until the exchange ends. Raises Overloaded."""
        self._bounds.hold(nbytes)
        self.nbytes += nbytes

    async def body(self) -> bytes:
        """The whole body, with its Content-Encoding undone. What its values will take is counted, too: an empty list of
        JSON is two bytes long and takes 72. Raises BodyRefused, InvalidRequest, Overloaded, ClientGone."""
        most = self._bounds.max_body
        declared = self.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            raise await self._drain_and_refuse()
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._next_message()
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                parts.clear()
                raise await self._drain_and_refuse() if message.get("more_body", False) else self._size_refusal()
            self.hold(len(piece))
            parts.append(piece)
            more = message.get("more_body", False)
            if more and self._bounds.inflight.crowded:
                seconds = monotonic() - self.started
                if seconds > _CROWDED and size < seconds * _CROWDED_RATE:
                    raise Overloaded("the body comes too slowly while inflight.bytes is half used")
        body = b"".join(parts)
        encoding = self.headers.get("content-encoding", "")
        if encoding and body:
            try:
                body = await self._bounds.workers.run(len(body) * 4, inflate, body, encoding, most)
            except TooLong:
                raise self._size_refusal() from None
            self.hold(len(body))
        if len(body) > _SHORT:
            text = text_of(self.headers, len(body))
            self.hold(await self.run(text, _size_of_values, body, text))
        return body

    async def wait(self, future: asyncio.Future[_T], cancel: Callable[[], None]) -> _T:
        """The future's result. When the client disconnects or the deadline passes first, calls `cancel` and raises
        ClientGone or DeadlineExceeded. Raises what the future raises."""
        watch = asyncio.ensure_future(self._disconnected())
        try:
            async with asyncio.timeout_at(None if self.deadline is None else self.deadline + GRACE):
                await asyncio.wait((future, watch), return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            raise ClientGone
        except TimeoutError:
            raise self._bounds.not_answered() from None
        finally:
            watch.cancel()
            if not future.done():
                cancel()

    async def run(self, nbytes: int, fn: Callable[..., _T], *args: Any) -> _T:
        """`fn(*args)`; on a worker thread when `nbytes`, the size of the work, is large."""
        return await self._bounds.workers.run(nbytes, fn, *args)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next_message(self) -> Mapping[str, Any]:
        since = monotonic()
        until = since + _STALL if self.deadline is None else min(self.deadline, since + _STALL)
        while True:
            try:
                async with asyncio.timeout_at(min(until, monotonic() + _CROWDED)):
                    message: Mapping[str, Any] = await self._receive()
                break
            except TimeoutError:
                if monotonic() >= until or self._bounds.inflight.crowded:
                    raise BodyRefused(408, "the body of the request did not come in time") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def _drain_and_refuse(self) -> BodyRefused:
        """Reads and drops the rest of the body, then returns the refusal: a client that is still sending could not see
        the response."""
        if "expect" not in self.headers:
            until = monotonic() + _STALL
            try:
                async with asyncio.timeout_at(until):
                    while (await self._next_message()).get("more_body", False):
                        pass
            except TimeoutError:
                pass
        return self._size_refusal()

    def _size_refusal(self) -> BodyRefused:
        most = self._bounds.max_body
        return BodyRefused(413, f"expected a body of at most {most} bytes, decoded too (http.max_body)")


def _size_of_values(body: bytes, length: int) -> int:
    """About how many bytes the values of a JSON text take, which is the first `length` bytes of a body."""
    return sum(size * body.count(mark, 0, length) for mark, size in _VALUES)
