"""The published state: what is served, and the statuses, for any thread to read.

`serving` and `statuses` are replaced and never changed: a reader has the state of one moment, without a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ModelStatus, ServableId, StateChange
from inferd.server.observability.events import event, get

log = get("lifecycle")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model in the serving map: the servable of a request that asks for no version, all by version, and by
    label."""

    default: Servable
    versions: Mapping[int, Servable]
    labels: Mapping[str, Servable]


ServingMap = dict[str, ServedModel]
"""By model name. Never changed once it is published; a plain dict because each request looks into it."""

Listener = Callable[[StateChange], None]


def served(versions: Mapping[int, Servable], preferred: Iterable[int], labels: Mapping[str, int]) -> ServedModel | None:
    """The entry for a model's available versions, None when there are none.

    The default is the highest of those `preferred` (what the policy or a pin asks for), or the highest of all while
    none of these is available. A label to a version that is not available is left out until it is.
    """
    if not versions:
        return None
    default = max(versions.keys() & set(preferred), default=max(versions))
    return ServedModel(
        versions[default],
        MappingProxyType(dict(versions)),
        MappingProxyType({label: versions[number] for label, number in labels.items() if number in versions}),
    )


class PublishedState:
    """The serving map, the statuses, and the listeners that hear of changes.

    Reading and `subscribe` are for any thread. Everything else is for the manager's thread, where the reconciler and
    its transitions write.
    """

    def __init__(self) -> None:
        self.serving: ServingMap = {}
        self.statuses: dict[str, ModelStatus] = {}
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Has `listener` called with every change, in the order in which things happen, on the manager's thread. Gives
        the function that ends it.

        A listener must be quick. When one raises, that is logged, and the others still hear of the change.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unsubscribe

    def swap(self, name: str, entry: ServedModel | None) -> None:
        """Replaces what is served of a model, in one step. None: nothing is served any more."""
        if entry == self.serving.get(name):
            return
        changed = dict(self.serving)
        if entry is None:
            del changed[name]
        else:
            changed[name] = entry
        self.serving = changed

    def publish(self, status: ModelStatus) -> None:
        """Replaces the status of a model."""
        self.statuses = {**self.statuses, status.name: status}

    def announce(self, id: ServableId) -> None:  # noqa: A002
        """Tells every listener how a version stands now. Call it when its status is published: for AVAILABLE after the
        swap that makes it true, for UNLOADING before the swap that ends it."""
        status = next(version for version in self.statuses[id.name].versions if version.id == id)
        for listener in self._listeners:
            try:
                listener(StateChange(status))
            except Exception as error:
                event(log, logging.ERROR, "a listener failed", error=error, servable=str(id))

    def forget(self, name: str) -> None:
        """Removes the status of a model of which nothing is left."""
        self.statuses = {other: status for other, status in self.statuses.items() if other != name}
