"""Bounds on the calls and bytes that the server holds between receiving a message and replying, over all models and
transports."""

from __future__ import annotations

from threading import Lock
from typing import Final

from inferd.server.config.schema import Inflight as InflightConfig

# Answers may exceed a small inflight.bytes, because the work for them is done, and fill a large one.
_ANSWERS_OVER: Final = 64 * 2**20  # bytes
_ANSWERS_LESS: Final = 8  # a share of inflight.bytes


class InflightBounds:
    """Counts calls and bytes in flight against `inflight.calls` and `inflight.bytes`. Thread-safe.

    A call enters before its message is received and leaves when its answer is written. Its bytes are those of its
    message, as received and inflated, and those of its answer until it is written. Streams are counted separately: idle
    streams cost little and must not keep requests out. The messages of a stream enter and leave as calls do.
    """

    __slots__ = ("_calls", "_lock", "_loop_count", "_max_answers", "_max_bytes", "_max_calls", "_nbytes", "_streams")

    def __init__(self, config: InflightConfig) -> None:
        self._max_calls = config.calls
        self._max_bytes = config.bytes
        self._max_answers = config.bytes - config.bytes // _ANSWERS_LESS + _ANSWERS_OVER
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
        """Bytes of their messages and of their answers that are not written."""
        return self._nbytes + self._loop_count.nbytes

    @property
    def room(self) -> int:
        """The bytes that fit."""
        return max(0, self._max_bytes - self.nbytes)

    @property
    def over(self) -> int:
        """The bytes that are held beyond five eighths of `inflight.bytes`: clients that do not read are cut off until
        there are none, the one that has not read for longest first."""
        return max(0, self.nbytes - self._max_bytes // 8 * 5)

    @property
    def crowded(self) -> bool:
        """Whether more than half of `inflight.bytes` is held: clients that are slow then lose their place."""
        return 2 * self.nbytes > self._max_bytes

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

    def hold(self, nbytes: int, own: int = 0) -> bool:
        """Counts bytes that a call which has entered holds. Returns False, and counts nothing, when they do not fit.
        `own`: bytes that are counted for the call already. After True, `release` or `leave` must follow."""
        with self._lock:
            held = self.nbytes
            # A call that is alone in flight always fits: the transport bounds the size of one message.
            if held > own and held + nbytes > self._max_bytes:
                return False
            self._nbytes += nbytes
            return True

    def hold_answer(self, nbytes: int, own: int = 0) -> bool:
        """As `hold`, for an answer. What waits to be written is to leave room (`over`), so the bound is reached only
        where answers are made faster than the transport can cut off the clients that do not read."""
        with self._lock:
            held = self.nbytes
            if held > own and held + nbytes > self._max_answers:
                return False
            self._nbytes += nbytes
            return True

    def count(self, nbytes: int) -> None:
        """Counts bytes that are held whether they fit or not. `release` must follow."""
        with self._lock:
            self._nbytes += nbytes

    def release(self, nbytes: int) -> None:
        """Takes bytes off the count."""
        with self._lock:
            self._nbytes -= nbytes

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
