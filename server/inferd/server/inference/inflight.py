"""Bounds on the calls and bytes that the server holds between receiving a message and replying, over all models and
transports."""

from __future__ import annotations

from threading import Lock

from inferd.server.config.schema import Inflight as InflightConfig


class InflightBounds:
    """Counts calls and bytes in flight against `inflight.calls` and `inflight.bytes`. Thread-safe.

    A call enters before its message is received and leaves when it is answered. Streams are counted separately: idle
    streams cost little and must not keep requests out. The messages of a stream enter and leave as calls do.
    """

    __slots__ = ("_calls", "_lock", "_loop_count", "_max_bytes", "_max_calls", "_nbytes", "_streams")

    def __init__(self, config: InflightConfig) -> None:
        self._max_calls = config.calls
        self._max_bytes = config.bytes
        self._calls = 0
        self._nbytes = 0
        self._streams = 0
        self._lock = Lock()
        self._loop_count = LoopCount(self)

    @property
    def loop_count(self) -> LoopCount:
        """The part of the count that the transport's loop keeps without a lock."""
        return self._loop_count

    @property
    def calls(self) -> int:
        """Calls that have entered and not left."""
        return self._calls + self._loop_count.calls

    @property
    def nbytes(self) -> int:
        """Bytes of their messages."""
        return self._nbytes + self._loop_count.nbytes

    @property
    def streams(self) -> int:
        """Open streams."""
        return self._streams

    def enter(self) -> bool:
        """Counts a call. Returns False, and counts nothing, when a bound is reached. After True, `leave` must
        follow."""
        with self._lock:
            if self.calls >= self._max_calls or self.nbytes >= self._max_bytes:
                return False
            self._calls += 1
            return True

    def hold(self, nbytes: int) -> bool:
        """Counts the bytes of the message of a call that has entered. Returns False, and counts nothing, when they do
        not fit."""
        with self._lock:
            held = self.nbytes
            # A message that is alone in flight always fits: the transport bounds the size of one message.
            if held and held + nbytes > self._max_bytes:
                return False
            self._nbytes += nbytes
            return True

    def leave(self, nbytes: int) -> None:
        """Takes an answered call off the count, with the bytes that it held."""
        with self._lock:
            self._calls -= 1
            self._nbytes -= nbytes

    def open_stream(self) -> bool:
        """Counts a stream. Returns False, and counts nothing, when the bound is reached. After True, `close_stream`
        must follow."""
        with self._lock:
            if self._streams >= self._max_calls:
                return False
            self._streams += 1
            return True

    def close_stream(self) -> None:
        """Takes a stream that has ended off the count."""
        with self._lock:
            self._streams -= 1

    @property
    def full(self) -> str:
        """The text of a refusal."""
        return f"the server is full: inflight.calls is {self._max_calls}, inflight.bytes is {self._max_bytes}"


class LoopCount:
    """The calls of the transport's loop, through which nearly all calls pass: plain sums without a lock.

    The methods are for the loop's thread only; other threads read `calls` and `nbytes`. When a call ends, the loop
    subtracts the call and its bytes from them directly.
    """

    __slots__ = ("_bounds", "calls", "nbytes")

    def __init__(self, bounds: InflightBounds) -> None:
        self._bounds = bounds
        self.calls = 0
        self.nbytes = 0

    def enter(self) -> bool:
        """See InflightBounds."""
        bounds = self._bounds
        if bounds._calls + self.calls >= bounds._max_calls or bounds._nbytes + self.nbytes >= bounds._max_bytes:
            return False
        self.calls += 1
        return True

    def hold(self, nbytes: int) -> bool:
        """See InflightBounds."""
        bounds = self._bounds
        held = bounds._nbytes + self.nbytes
        if held and held + nbytes > bounds._max_bytes:
            return False
        self.nbytes += nbytes
        return True
