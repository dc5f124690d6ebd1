"""The Unloader: what happens to a servable that has left the serving map. Its last request ends, it is closed, its
memory is given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.reconcile.mailbox import Job, Post
from inferd.server.lifecycle.reconcile.model_state import ModelState, VersionState
from inferd.server.lifecycle.servable import Servable
from inferd.server.observability.events import event, get

log = get("lifecycle")


class Unloader:
    """The manager's thread only; closing itself happens on threads of its own, for one that hangs must not hold up
    others.

    `closed` is called on the manager's thread when a generation of a version is closed.
    """

    def __init__(
        self,
        loader: LoaderLike,
        post: Post,
        spawn: Callable[[str, Job], None],
        closed: Callable[[ModelState, VersionState, int], None],
    ) -> None:
        self._loader = loader
        self._post = post
        self._spawn = spawn
        self._told = closed
        self._closing: set[int] = set()  # generations

    def retire(self, model: ModelState, record: VersionState, servable: Servable) -> None:
        """Closes a servable when its last handle is back."""
        record.ending[servable.generation] = servable

        def idle(idle: Servable) -> None:
            self._post(partial(self.close, model, record, idle))

        servable.retire(idle)

    def end(self, model: ModelState, record: VersionState, servable: Servable) -> None:
        """Closes a servable that never served."""
        record.ending[servable.generation] = servable
        self.close(model, record, servable)

    def close(self, model: ModelState, record: VersionState, servable: Servable) -> None:
        """Closes a servable now. Does nothing when that has begun: idle may be told more than once, when releases
        coincide and by a request that came too late."""
        if servable.generation in self._closing or servable.generation not in record.ending:
            return
        self._closing.add(servable.generation)

        def job() -> None:
            try:
                self._loader.unload(servable)
            except Exception as error:  # the version is gone in any case: nobody must wait for it for ever
                event(log, logging.ERROR, "closing failed", error=error, servable=str(servable.id))
            self._post(partial(self._closed, model, record, servable.generation))

        self._spawn(f"inferd-close-{record.id}", job)

    def close_all(self, models: Iterable[ModelState]) -> None:
        """Closes now whatever still has requests."""
        for model in models:
            for record in model.versions.values():
                for servable in list(record.ending.values()):
                    self.close(model, record, servable)

    def _closed(self, model: ModelState, record: VersionState, generation: int) -> None:
        record.ending.pop(generation, None)
        self._closing.discard(generation)
        self._told(model, record, generation)
