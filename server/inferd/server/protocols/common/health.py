"""grpc.health.v1.Health.

The service "", and the name of each gRPC service, stand for the readiness of the server. The name of a model stands for
whether at least one of its versions is available.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from grpc_health.v1 import health_pb2 as pb

from inferd.server.access.caller import Caller
from inferd.server.errors import NotFound
from inferd.server.inference.failures import SHUTTING_DOWN
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import StateChange
from inferd.server.protocols.common.error_boundary import ErrorBoundary, checked_name
from inferd.server.protocols.common.method import UnaryMethod, WatchMethod
from inferd.server.transport.calls import StreamCall, UnaryCall

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
MAX_UNSENT = 64  # changes that a watcher may be behind before it is cut off

_SERVING: int = pb.HealthCheckResponse.SERVING
_NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN
_REPLIES = {
    status: pb.HealthCheckResponse(status=status).SerializeToString() for status in (_SERVING, _NOT_SERVING, _UNKNOWN)
}


class Health:
    """Answers from the manager's state. Its only own state is whether the server is stopping. Thread-safe.

    `services` are the names of the gRPC services that stand for the whole server.
    """

    def __init__(self, manager: ManagerLike, services: tuple[str, ...] = ()) -> None:
        self._manager = manager
        self._services = frozenset({"", *services})
        self._stopped = False
        self._watchers: dict[_HealthWatcher, None] = {}
        self._lock = Lock()
        manager.subscribe(self._changed)
        manager.on_ready(self._refresh)

    def stop(self) -> None:
        """Announces that the server stops: NOT_SERVING for every name from now on."""
        self._stopped = True
        self._refresh()

    def ready(self) -> bool:
        """Whether the server is ready and not stopping."""
        return self._manager.ready() and not self._stopped

    def status(self, service: str) -> int:
        """The status of a service or model; SERVICE_UNKNOWN for an unknown name."""
        if service in self._services:
            return _SERVING if self.ready() else _NOT_SERVING
        try:
            model = self._manager.status(service)
        except NotFound:
            return _UNKNOWN
        available = any(version.serves for version in model.versions)
        return _SERVING if available and not self._stopped else _NOT_SERVING

    def unary(self, boundary: ErrorBoundary) -> Mapping[str, UnaryMethod]:
        """The unary method by path."""
        return {CHECK: UnaryMethod(pb.HealthCheckRequest, self._check, boundary)}

    def watch(self, boundary: ErrorBoundary) -> Mapping[str, WatchMethod]:
        """The stream by path."""
        return {WATCH: WatchMethod(pb.HealthCheckRequest, self._watch, boundary)}

    def _check(self, call: UnaryCall, request: pb.HealthCheckRequest, _caller: Caller) -> None:
        """Check: the present status; NOT_FOUND for an unknown name."""
        status = self.status(request.service)
        if status == _UNKNOWN:
            raise NotFound(f"there is no model {request.service!r}")
        call.reply(_REPLIES[status])

    def _watch(self, call: StreamCall, request: pb.HealthCheckRequest, _caller: Caller) -> None:
        """Watch: the present status, then every change, until the client disconnects or the server drains."""
        service = checked_name(request.service)
        watcher = _HealthWatcher(call, service, self._forget)
        with self._lock:
            self._watchers[watcher] = None
        call.on_cancel(lambda: self._forget(watcher))
        # The status is sent before `on_drain`: a transport that drains already calls `_end` at once, and the client
        # still gets the status first.
        watcher.update(self.status(service))
        call.on_drain(lambda: self._end(watcher))

    def _changed(self, change: StateChange) -> None:
        name = change.status.id.name
        for watcher in list(self._watchers):
            if watcher.service == name or watcher.service in self._services:
                watcher.update(self.status(watcher.service))

    def _refresh(self) -> None:
        for watcher in list(self._watchers):
            watcher.update(self.status(watcher.service))

    def _forget(self, watcher: _HealthWatcher) -> None:
        with self._lock:
            self._watchers.pop(watcher, None)

    def _end(self, watcher: _HealthWatcher) -> None:
        self._forget(watcher)
        watcher.update(_NOT_SERVING)
        watcher.call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing)


class _HealthWatcher:
    """One open Watch stream. Thread-safe."""

    __slots__ = ("_forget", "_last", "_lock", "call", "service")

    def __init__(self, call: StreamCall, service: str, forget: Callable[[_HealthWatcher], None]) -> None:
        self.call = call
        self.service = service
        self._forget = forget
        self._last: int | None = None
        self._lock = Lock()

    def update(self, status: int) -> None:
        """Sends the status if it differs from the last one sent. Ends the stream of a client that reads too slowly."""
        with self._lock:
            if status == self._last:
                return
            if self.call.unsent < MAX_UNSENT:
                self._last = status
                self.call.send(_REPLIES[status])
                return
        self._forget(self)
        self.call.fail(SHUTTING_DOWN.code, "the watcher reads too slowly", SHUTTING_DOWN.trailing)
