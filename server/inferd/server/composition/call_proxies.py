"""Calls around calls: what looks at a call's messages or its end stands in for it and passes everything else on.

For what is off the hot path, or only there when it is asked for: each costs a few microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.server.errors import Code
from inferd.server.transport.calls import Metadata, StreamCall, UnaryCall


class _Proxy:
    """What both kinds pass on."""

    def __init__(self, call: UnaryCall | StreamCall) -> None:
        self._call = call

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
        self._call.fail(code, text, trailing)


class UnaryProxy(_Proxy):
    """A UnaryCall."""

    def __init__(self, call: UnaryCall) -> None:
        super().__init__(call)
        self._unary = call

    @property
    def request(self) -> bytes:
        return self._unary.request

    def reply(self, message: bytes) -> None:
        self._unary.reply(message)


class StreamProxy(_Proxy):
    """A StreamCall."""

    def __init__(self, call: StreamCall) -> None:
        super().__init__(call)
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
        self._stream.end()
