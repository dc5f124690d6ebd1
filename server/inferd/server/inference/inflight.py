"""Bounds on what the server holds between receiving a message and replying, over all models and transports."""

from __future__ import annotations

from threading import Lock

from inferd.server.config.schema import Inflight as InflightConfig


class InflightBounds:
    """Calls and bytes in flight. Thread-safe.

    A call enters before its message is received and leaves when it is answered; streams are counted apart, because idle
    ones cost little and must not keep requests out, but their messages enter and leave like calls.
    """

    __slots__ = ("_calls", "_desk", "_lock", "_max_bytes", "_max_calls", "_nbytes", "_streams")

    def __init__(self, config: InflightConfig) -> None:
        self._max_calls = config.calls
        self._max_bytes = config.bytes
        self._calls = 0
        self._nbytes = 0
        self._streams = 0
        self._lock = Lock()
        self._desk = Desk(self)

    @property
    def desk(self) -> Desk:
        """The share of the front end's thread."""
        return self._desk

    @property
    def calls(self) -> int:
        """Calls between entering and leaving."""
        return self._calls + self._desk.calls

    @property
    def nbytes(self) -> int:
        """Bytes of their messages."""
        return self._nbytes + self._desk.nbytes

    @property
    def streams(self) -> int:
        """Open streams."""
        return self._streams

    def enter(self) -> bool:
        """A call arrives. Gives whether there is room for it; if so, `leave` must follow."""
        with self._lock:
            if self.calls >= self._max_calls or self.nbytes >= self._max_bytes:
                return False
            self._calls += 1
            return True

    def hold(self, nbytes: int) -> bool:
        """The message of a call that has entered has come. Gives whether there is room; if not, nothing is held."""
        with self._lock:
            held = self.nbytes
            # The only message in flight is always taken: what it may be at most is for the transport to say.
            if held and held + nbytes > self._max_bytes:
                return False
            self._nbytes += nbytes
            return True

    def leave(self, nbytes: int) -> None:
        """A call is answered; `nbytes` is what it held."""
        with self._lock:
            self._calls -= 1
            self._nbytes -= nbytes

    def open_stream(self) -> bool:
        """A stream begins. Gives whether there is room for it; if so, `close_stream` must follow."""
        with self._lock:
            if self._streams >= self._max_calls:
                return False
            self._streams += 1
            return True

    def close_stream(self) -> None:
        """A stream has ended."""
        with self._lock:
            self._streams -= 1

    @property
    def full(self) -> str:
        """What a refused caller is told."""
        return f"the server is full: inflight.calls is {self._max_calls}, inflight.bytes is {self._max_bytes}"


class Desk:
    """The same for the one thread through which nearly all calls come and go: plain sums, no lock. On that thread only;
    the others see its numbers. Whoever ends a call takes it and its bytes off them.
    """

    __slots__ = ("_whole", "calls", "nbytes")

    def __init__(self, whole: InflightBounds) -> None:
        self._whole = whole
        self.calls = 0
        self.nbytes = 0

    def enter(self) -> bool:
        """See InflightBounds."""
        whole = self._whole
        if whole._calls + self.calls >= whole._max_calls or whole._nbytes + self.nbytes >= whole._max_bytes:
            return False
        self.calls += 1
        return True

    def hold(self, nbytes: int) -> bool:
        """See InflightBounds."""
        whole = self._whole
        held = whole._nbytes + self.nbytes
        if held and held + nbytes > whole._max_bytes:
            return False
        self.nbytes += nbytes
        return True
