"""inferd.v1.ModelService: WatchModels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

from inferd.server.access.caller import Caller
from inferd.server.access.grants import Scope
from inferd.server.errors import Code
from inferd.server.inference.failures import SHUTTING_DOWN, refusal
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import StateChange, VersionStatus
from inferd.server.protocols.common.error_boundary import ErrorBoundary, checked_name
from inferd.server.protocols.native import messages
from inferd.server.transport.calls import StreamCall
from inferd.v1 import model_service_pb2 as pb

MAX_UNSENT = 1024  # unsent changes at which a slow client is cut off; a new call begins with the full state again


class ModelWatch:
    """Sends the present state of every version, then every change. Thread-safe."""

    def __init__(self, manager: ManagerLike, boundary: ErrorBoundary) -> None:
        self._manager = manager
        self._boundary = boundary

    def __call__(self, call: StreamCall, request: pb.WatchModelsRequest, caller: Caller) -> None:
        """Handles one stream: of the model that the request names, or of all that the caller may see."""
        name, rules = checked_name(request.name), self._boundary.rules

        def visible(model: str) -> bool:
            return name in {"", model} and rules.allows(caller, Scope.METADATA, model)

        _ModelWatcher(call, self._manager, visible).start()


class _ModelWatcher:
    """One open stream. Changes that happen while the present states are being sent are sent after them."""

    def __init__(self, call: StreamCall, manager: ManagerLike, visible: Callable[[str], bool]) -> None:
        self._call = call
        self._manager = manager
        self._visible = visible
        self._lock = Lock()
        self._early: deque[StateChange] | None = deque()
        self._subscription: list[Callable[[], None]] = []

    def start(self) -> None:
        self._subscription = [self._manager.subscribe(self._changed)]
        self._call.on_cancel(self._unsubscribe)
        present: dict[object, VersionStatus] = {}
        for model in self._manager.models():
            if self._visible(model.name):
                for version in model.versions:
                    present[version.id] = version
                    self._send(version, initial=True)
        with self._lock:
            early, self._early = self._early or deque(), None
            for change in early:
                if present.get(change.status.id) != change.status:
                    self._send(change.status)

        self._call.on_drain(self._drain)

    def _drain(self) -> None:
        self._unsubscribe()
        self._call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing)

    def _unsubscribe(self) -> None:
        while self._subscription:
            self._subscription.pop()()

    def _changed(self, change: StateChange) -> None:
        if not self._visible(change.status.id.name):
            return
        with self._lock:
            if self._early is not None:
                self._early.append(change)
                return
            self._send(change.status)

    def _send(self, status: VersionStatus, *, initial: bool = False) -> None:
        if self._call.unsent >= MAX_UNSENT and not initial:
            slow = refusal(Code.RESOURCE_EXHAUSTED, f"the watcher is more than {MAX_UNSENT} changes behind")
            self._call.fail(slow.code, slow.text, slow.trailing)
            self._unsubscribe()
            return
        response = pb.WatchModelsResponse(name=status.id.name, version=messages.version_status(status), initial=initial)
        self._call.send(response.SerializeToString())
