"""How a servable ends once it has left the serving map: its last request is answered, it is closed, its memory is
returned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from inferd.server.lifecycle.loading.loader import LoaderLike
from inferd.server.lifecycle.loading.pool import Job
from inferd.server.lifecycle.reconcile.events import ServableClosed, ServableDrained
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.servable import Servable
from inferd.server.observability.events import event, get

log = get("lifecycle")


class Unloader:
    """Drains and closes servables. For the manager's thread; results come as events. It keeps no state.

    Closing happens on a thread for each servable, because one that hangs must not keep the others waiting.
    """

    def __init__(self, loader: LoaderLike, mailbox: Mailbox, spawn: Callable[[str, Job], None]) -> None:
        self._loader = loader
        self._mailbox = mailbox
        self._spawn = spawn

    def drain(self, servable: Servable) -> None:
        """Ends in ServableDrained when the last handle is back, which may come more than once: when releases coincide,
        and after a request that came too late."""
        servable.retire(self._drained)

    def close(self, servable: Servable) -> None:
        """Closes a servable now; ends in ServableClosed. To be called once for each servable."""
        self._spawn(f"inferd-close-{servable.id}", partial(self._close, servable))

    def _drained(self, servable: Servable) -> None:
        self._mailbox.post(ServableDrained(servable.id, servable.generation))

    def _close(self, servable: Servable) -> None:
        try:
            self._loader.unload(servable)
        except Exception as error:  # the version is gone in any case: nobody must wait for it for ever
            event(log, logging.ERROR, "closing failed", error=error, servable=str(servable.id))
        self._mailbox.post(ServableClosed(servable.id, servable.generation))
