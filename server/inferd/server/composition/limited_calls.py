"""Every method within its client's bounds (`limits.clients`). The outermost check: bad credentials count, too."""

from __future__ import annotations

from collections.abc import Callable

from inferd.server.access.client_limits import Lease, Limiter
from inferd.server.composition.call_proxies import StreamProxy, UnaryProxy
from inferd.server.errors import Code, RateLimited
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import Metadata, StreamCall, StreamHandler, UnaryCall, UnaryHandler


class LimitedCalls:
    """Wraps handlers. `refused` hears of every refusal. Thread-safe."""

    def __init__(self, limiter: Limiter, edge: ErrorBoundary, refused: Callable[[str, Code], None]) -> None:
        self._limiter = limiter
        self._edge = edge
        self._refused = refused

    def unary(self, handler: UnaryHandler) -> UnaryHandler:
        """The handler for calls that have a place of their client's."""

        def limited(call: UnaryCall) -> None:
            lease = self._enter(call)
            if lease is None:
                return
            if lease[0] is None:
                handler(call)
                return
            call.on_cancel(lease[0].release)
            handler(_Unary(call, lease[0]))

        return limited

    def stream(self, handler: StreamHandler) -> StreamHandler:
        """The same; an open stream is one place. Its messages count by themselves: see `session`."""

        def limited(call: StreamCall) -> None:
            lease = self._enter(call)
            if lease is None:
                return
            if lease[0] is None:
                handler(call)
                return
            call.on_cancel(lease[0].release)
            handler(_Stream(call, lease[0]))

        return limited

    def _enter(self, call: UnaryCall | StreamCall) -> tuple[Lease | None] | None:
        """The lease that is held, if any, in a tuple; None for a call that was refused."""
        try:
            return (self._limiter.enter(self._edge.gate.client(call)),)
        except RateLimited as error:
            self._refused(call.method, error.code)
            self._edge.fail(call, error)
            return None


class _Unary(UnaryProxy):
    """Gives its place back with its answer."""

    def __init__(self, call: UnaryCall, lease: Lease) -> None:
        super().__init__(call)
        self._lease = lease

    def reply(self, message: bytes) -> None:
        self._lease.release()
        super().reply(message)

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        self._lease.release()
        super().fail(code, text, trailing)


class _Stream(StreamProxy):
    """Gives its place back with its end."""

    def __init__(self, call: StreamCall, lease: Lease) -> None:
        super().__init__(call)
        self._lease = lease

    def end(self) -> None:
        self._lease.release()
        super().end()

    def fail(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        self._lease.release()
        super().fail(code, text, trailing)
