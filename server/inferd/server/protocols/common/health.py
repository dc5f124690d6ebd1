"""grpc.health.v1.Health. "" (and the name of each service of ours) is the server's readiness; a model's name is
whether at least one of its versions is available."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock

from grpc_health.v1 import health_pb2 as pb

from inferd.server.errors import NotFound
from inferd.server.inference.failures import GONE, failure_of
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import StateChange
from inferd.server.protocols.common.error_boundary import checked_name, parse
from inferd.server.transport.calls import StreamCall, StreamHandler, UnaryCall, UnaryHandler

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
MAX_UNSENT = 64  # changes that a watcher may be behind before it is cut off

_SERVING: int = pb.HealthCheckResponse.SERVING
_NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN
_REPLIES = {
    status: pb.HealthCheckResponse(status=status).SerializeToString() for status in (_SERVING, _NOT_SERVING, _UNKNOWN)
}


def _anything(_service: str) -> None:
    """Every name may be asked for."""


class Health:
    """Answers from the manager's state; keeps none of its own but that it was stopped. Thread-safe.

    `services` are the names of gRPC services that answer for the whole server.
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
        """The server is about to stop: NOT_SERVING from now on, whatever the models do."""
        self._stopped = True
        self._refresh()

    def ready(self) -> bool:
        """Whether the server as a whole is ready and not about to stop."""
        return self._manager.ready() and not self._stopped

    def status(self, service: str) -> int:
        """The status of a service; SERVICE_UNKNOWN for one that there is not."""
        if service in self._services:
            return _SERVING if self.ready() else _NOT_SERVING
        try:
            model = self._manager.status(service)
        except NotFound:
            return _UNKNOWN
        available = any(version.serves for version in model.versions)
        return _SERVING if available and not self._stopped else _NOT_SERVING

    def through(self, allow: Callable[[str], object]) -> tuple[UnaryHandler, StreamHandler]:
        """Check and Watch for callers who may ask for some models only: `allow` raises for the name of another one."""

        def look(service: str) -> None:
            if service not in self._services:
                allow(service)

        return partial(self.check, look=look), partial(self.watch, look=look)

    def check(self, call: UnaryCall, look: Callable[[str], None] = _anything) -> None:
        """Check: the status now, NOT_FOUND for an unknown service."""
        service = parse(pb.HealthCheckRequest, call.request).service
        look(service)
        status = self.status(service)
        if status == _UNKNOWN:
            raise NotFound(f"there is no model {service!r}")
        call.reply(_REPLIES[status])

    def watch(self, call: StreamCall, look: Callable[[str], None] = _anything) -> None:
        """Watch: the status now, then every change, until the client goes or the server drains."""

        def start(message: bytes | None) -> None:
            if message is None:
                call.end()
                return
            try:
                service = checked_name(parse(pb.HealthCheckRequest, message).service)
                look(service)
            except Exception as error:
                failure = failure_of(error)
                call.fail(failure.code, failure.text, failure.trailing)
                return
            watcher = _HealthWatcher(call, service, self._forget)
            with self._lock:
                self._watchers[watcher] = None
            call.on_cancel(lambda: self._forget(watcher))
            # The transport may already drain: then what follows is the only answer.
            watcher.tell(self.status(service))
            call.on_drain(lambda: self._end(watcher))

        call.on_drain(lambda: call.fail(GONE.code, GONE.text, GONE.trailing))
        call.read(start)

    def _changed(self, change: StateChange) -> None:
        name = change.status.id.name
        for watcher in list(self._watchers):
            if watcher.service == name or watcher.service in self._services:
                watcher.tell(self.status(watcher.service))

    def _refresh(self) -> None:
        for watcher in list(self._watchers):
            watcher.tell(self.status(watcher.service))

    def _forget(self, watcher: _HealthWatcher) -> None:
        with self._lock:
            self._watchers.pop(watcher, None)

    def _end(self, watcher: _HealthWatcher) -> None:
        self._forget(watcher)
        watcher.tell(_NOT_SERVING)
        watcher.call.fail(GONE.code, GONE.text, GONE.trailing)


class _HealthWatcher:
    """One open Watch."""

    __slots__ = ("_forget", "_last", "_lock", "call", "service")

    def __init__(self, call: StreamCall, service: str, forget: Callable[[_HealthWatcher], None]) -> None:
        self.call = call
        self.service = service
        self._forget = forget
        self._last: int | None = None
        self._lock = Lock()

    def tell(self, status: int) -> None:
        """Sends a status when it is news."""
        with self._lock:
            if status == self._last:
                return
            if self.call.unsent < MAX_UNSENT:
                self._last = status
                self.call.send(_REPLIES[status])
                return
        self._forget(self)
        self.call.fail(GONE.code, "the watcher reads too slowly", GONE.trailing)
