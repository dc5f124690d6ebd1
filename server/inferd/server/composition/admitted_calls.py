"""Calls that were admitted: their end is told, and the caller of a stream is checked again while it lasts.

For what is off the hot path, or only there where a setting needs it: each proxy costs a few microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.server.errors import Code
from inferd.server.transport.calls import Metadata, StreamCall, UnaryCall

Ended = Callable[[Code | None, str], None]
"""Called once with the outcome of a call: None and "" for OK, else the code and text of the status."""


class _CallProxy:
    """Passes on what both kinds of calls have, and tells the end."""

    def __init__(self, call: UnaryCall | StreamCall, ended: Ended) -> None:
        self._call = call
        self._ended = [ended]

    @property
    def method(self) -> str:
        return self._call.method

    @property
    def deadline(self) -> float | None:
        return self._call.deadline

    @property
    def peer(self) -> str:
        return self._call.peer

    @property
    def cancelled(self) -> bool:
        return self._call.cancelled

    def metadata(self, key: str) -> str | None:
        return self._call.metadata(key)

    def certificate(self) -> Sequence[str]:
        return self._call.certificate()

    def on_cancel(self, fn: Callable[[], None]) -> None:
        self._call.on_cancel(fn)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        self.tell_end(code, text)
        self._call.fail(code, text, trailing)

    def tell_end(self, code: Code | None, text: str) -> None:
        """Tells the end, unless it was told before. Thread-safe."""
        try:
            ended = self._ended.pop()
        except IndexError:
            return
        ended(code, text)


class AdmittedUnaryCall(_CallProxy):
    """A UnaryCall."""

    def __init__(self, call: UnaryCall, ended: Ended) -> None:
        super().__init__(call, ended)
        self._unary = call

    @property
    def request(self) -> bytes:
        return self._unary.request

    def reply(self, message: bytes) -> None:
        self.tell_end(None, "")
        self._unary.reply(message)


class AdmittedStreamCall(_CallProxy):
    """A StreamCall."""

    def __init__(self, call: StreamCall, ended: Ended) -> None:
        super().__init__(call, ended)
        self._stream = call

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        self._stream.read(fn)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        self._stream.send(message, sent)

    @property
    def unsent(self) -> int:
        return self._stream.unsent

    def on_drain(self, fn: Callable[[], None]) -> None:
        self._stream.on_drain(fn)

    def end(self) -> None:
        self.tell_end(None, "")
        self._stream.end()


class CheckedStreamCall(AdmittedStreamCall):
    """A stream that its caller feeds: `still_valid` is asked with every message that is read; it ends the stream and
    gives False once the credentials are no longer valid."""

    def __init__(self, call: StreamCall, ended: Ended, still_valid: Callable[[StreamCall], bool]) -> None:
        super().__init__(call, ended)
        self._still_valid = still_valid

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        def checked(message: bytes | None) -> None:
            if message is None or self._still_valid(self):
                fn(message)

        self._stream.read(checked)


class CheckedWatchCall(CheckedStreamCall):
    """A stream whose caller sends nothing after its request: `still_valid` is asked with every message that is sent,
    too."""

    def __init__(self, call: StreamCall, ended: Ended, still_valid: Callable[[StreamCall], bool]) -> None:
        super().__init__(call, ended, still_valid)
        self._over = False
        self._on_cancel: list[Callable[[], None]] = []

    def on_cancel(self, fn: Callable[[], None]) -> None:
        self._on_cancel.append(fn)
        super().on_cancel(fn)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        if self._over:
            return
        if self._still_valid(self):
            self._stream.send(message, sent)
            return
        self._over = True
        for fn in self._on_cancel:  # the handler need not go on
            fn()
