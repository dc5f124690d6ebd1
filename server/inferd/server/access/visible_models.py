"""The manager as one kind of caller sees it: models that are not the caller's are refused, or left out of lists.

Every handler of every protocol reaches models through such a view, so that none of them can forget to ask. What is
refused is refused by name, before anybody looks whether there is such a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from inferd.server.access.grants import Grants, Scope
from inferd.server.lifecycle.interfaces import HandleLike, ManagerLike, ServableLike
from inferd.server.lifecycle.operations.load_overrides import Replacement
from inferd.server.lifecycle.state import ModelStatus, StateChange
from inferd.server.repository.configured_models import ConfiguredModel


class VisibleModels:
    """A ManagerLike. `scope` is what looking needs here (`acquire`, `status`, lists); operating needs `admin`. Raises
    Forbidden or Unauthenticated. Thread-safe."""

    def __init__(self, manager: ManagerLike, grants: Grants, scope: Scope) -> None:
        self._manager = manager
        self._grants = grants
        self._scope = scope
        self._sees = grants.covers if scope in grants.scopes else _nothing

    def allow(self, name: str) -> None:
        """Raises unless the caller may look at a model of this name."""
        if not self._sees(name):
            raise self._grants.refusal(self._scope, name)

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> HandleLike:
        if not self._sees(name):
            raise self._grants.refusal(self._scope, name)
        return self._manager.acquire(name, version, label)

    def serving(self, name: str, version: int | None = None, label: str | None = None) -> ServableLike | None:
        self.allow(name)
        return self._manager.serving(name, version, label)

    def status(self, name: str) -> ModelStatus:
        self.allow(name)
        return self._manager.status(name)

    def models(self) -> tuple[ModelStatus, ...]:
        return tuple(model for model in self._manager.models() if self._sees(model.name))

    def repository_errors(self) -> tuple[str, ...]:
        # They name directories, of models that the caller may not look at, too.
        return self._manager.repository_errors() if self._grants.allows_all(self._scope) else ()

    def subscribe(self, fn: Callable[[StateChange], None]) -> Callable[[], None]:
        def changed(change: StateChange) -> None:
            if self._sees(change.status.id.name):
                fn(change)

        return self._manager.subscribe(changed)

    @property
    def persistent(self) -> bool:
        return self._manager.persistent

    def ready(self) -> bool:
        return self._manager.ready()

    def on_ready(self, fn: Callable[[], None]) -> None:
        self._manager.on_ready(fn)

    def load(
        self, name: str, version: int | None = None, *, by: str, replacement: Replacement | None = None
    ) -> Future[ModelStatus]:
        self._operate(name)
        return self._manager.load(name, version, by=by, replacement=replacement)

    def unload(self, name: str, version: int | None = None, *, by: str) -> Future[ModelStatus]:
        self._operate(name)
        return self._manager.unload(name, version, by=by)

    def set_label(self, name: str, label: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        self._operate(name)
        return self._manager.set_label(name, label, version, by=by)

    def rollback(self, name: str, to: int | None = None, *, by: str) -> Future[ModelStatus]:
        self._operate(name)
        return self._manager.rollback(name, to, by=by)

    @property
    def configured_models(self) -> Mapping[str, ConfiguredModel]:
        return {name: model for name, model in self._manager.configured_models.items() if self._sees(name)}

    def replace_configured_models(
        self, models: Mapping[str, ConfiguredModel], *, by: str
    ) -> Sequence[Future[ModelStatus]]:
        """What is replaced are the models that the caller may operate; the others stay as they are."""
        for name in models:
            self._operate(name)
        others = {
            name: model
            for name, model in self._manager.configured_models.items()
            if not self._grants.allows(Scope.ADMIN, name)
        }
        return self._manager.replace_configured_models({**others, **models}, by=by)

    def _operate(self, name: str) -> None:
        if not self._grants.allows(Scope.ADMIN, name):
            raise self._grants.refusal(Scope.ADMIN, name)


def _nothing(_name: str) -> bool:
    return False
