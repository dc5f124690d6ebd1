"""One request over REST, from its first byte to its answer: its body, its bounds, its deadline, its client.

What it holds counts with everything else in flight. When the client goes away what was started for it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic
from types import TracebackType
from typing import Any, Final, TypeVar

from inferd.server.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from inferd.server.http.admission import CERTIFICATE, joined, peer_of
from inferd.server.http.content_coding import TooLong, inflate
from inferd.server.http.workers import BodyWorkers
from inferd.server.inference.inflight import InflightBounds

_T = TypeVar("_T")
_GRACE: Final = 0.1  # seconds past the deadline in which whoever computes may say so itself
_STALL: Final = 10.0  # seconds between two pieces of a body


class Gone(Exception):
    """The client is not there any more: nobody reads an answer."""


class BodyRefused(InvalidRequest):
    """The body is not taken. `status` is the one for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CallAdmission:
    """Counts who is inside, and lets nobody in any more once it is closed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self.closed = False
        self.empty = Event()  # set once it is closed and nobody is inside

    def enter(self) -> bool:
        """Gives whether one may enter; then `leave` must follow."""
        with self._lock:
            if not self.closed:
                self._inside += 1
            return not self.closed

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self.closed and not self._inside:
                self.empty.set()

    def close(self) -> None:
        with self._lock:
            self.closed = True
            if not self._inside:
                self.empty.set()


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """What every exchange is bound by. Times in seconds, sizes in bytes."""

    inflight: InflightBounds
    door: CallAdmission
    workers: BodyWorkers
    max_body: int
    timeout: float


class HttpExchange:
    """Used as an async context manager, on the event loop. Raises Overloaded, Unavailable on entering."""

    def __init__(self, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], bounds: BodyBounds) -> None:
        self.started = monotonic()
        self.deadline: float | None = self.started + bounds.timeout
        self.headers = joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        self.peer = peer_of(scope.get("client"))
        self._certificate: Sequence[str] = scope.get("state", {}).get(CERTIFICATE, ())
        self.counted = False  # whether metrics have this request
        self.nbytes = 0
        self._receive = receive
        self._bounds = bounds
        self._inside = self._entered = False

    async def __aenter__(self) -> HttpExchange:
        self._inside = self._bounds.door.enter()
        if not self._inside:
            raise Unavailable("the server is shutting down")
        self._entered = self._bounds.inflight.enter()
        if not self._entered:
            self._bounds.door.leave()
            raise Overloaded(self._bounds.inflight.full)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bounds.inflight.leave(self.nbytes)
        self._bounds.door.leave()

    def metadata(self, key: str) -> str | None:
        """A header, as the gate asks for it."""
        return self.headers.get(key)

    def certificate(self) -> Sequence[str]:
        """Names of the client's verified certificate, for the authority."""
        return self._certificate

    def take_its_time(self) -> None:
        """What is done for this request ends when it ends, however long that is."""
        self.deadline = None

    def hold(self, nbytes: int) -> None:
        """Counts memory that is kept for this request. Raises Overloaded."""
        if not self._bounds.inflight.hold(nbytes):
            raise Overloaded(self._bounds.inflight.full)
        self.nbytes += nbytes

    async def body(self) -> bytes:
        """The whole body, decoded. Raises BodyRefused, InvalidRequest, Overloaded, DeadlineExceeded, Gone."""
        most = self._bounds.max_body
        declared = self.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            raise await self._too_long()
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._next()
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                parts.clear()
                raise await self._too_long() if message.get("more_body", False) else self._refused_size()
            self.hold(len(piece))
            parts.append(piece)
            more = message.get("more_body", False)
        body = b"".join(parts)
        encoding = self.headers.get("content-encoding", "")
        if not encoding or not body:
            return body
        try:
            body = await self._bounds.workers.run(len(body) * 4, inflate, body, encoding, most)
        except TooLong:
            raise self._refused_size() from None
        self.hold(len(body))
        return body

    async def wait(self, future: asyncio.Future[_T], cancel: Callable[[], None]) -> _T:
        """What the future gives; `cancel` is called when nobody wants that any more. Raises Gone, DeadlineExceeded, and
        what the future raises."""
        watch = asyncio.ensure_future(self._left())
        try:
            async with asyncio.timeout_at(None if self.deadline is None else self.deadline + _GRACE):
                await asyncio.wait((future, watch), return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            raise Gone
        except TimeoutError:
            raise DeadlineExceeded(f"not answered within {self._bounds.timeout:g} s (http.timeout)") from None
        finally:
            watch.cancel()
            if not future.done():
                cancel()

    async def run(self, nbytes: int, fn: Callable[..., _T], *args: Any) -> _T:
        """`fn(*args)`, on a thread if there is much to do."""
        return await self._bounds.workers.run(nbytes, fn, *args)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> Mapping[str, Any]:
        until = monotonic() + _STALL
        if self.deadline is not None:
            until = min(self.deadline, until)
        try:
            async with asyncio.timeout_at(until):
                message: Mapping[str, Any] = await self._receive()
        except TimeoutError:
            raise BodyRefused(408, "the body of the request did not come in time") from None
        if message["type"] == "http.disconnect":
            raise Gone
        return message

    async def _too_long(self) -> BodyRefused:
        """The refusal, after what is on its way has been read: else the client could not see it."""
        if "expect" not in self.headers:
            until = monotonic() + _STALL
            try:
                async with asyncio.timeout_at(until):
                    while (await self._next()).get("more_body", False):
                        pass
            except TimeoutError:
                pass
        return self._refused_size()

    def _refused_size(self) -> BodyRefused:
        most = self._bounds.max_body
        return BodyRefused(413, f"expected a body of at most {most} bytes, decoded too (http.max_body)")
