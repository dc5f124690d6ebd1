"""How long to wait before a worker that died is started again."""

from __future__ import annotations

from inferd.server.lifecycle.reconcile.backoff import Backoff

EARLY = 30.0  # seconds; who lives shorter has died early


class RestartBackoff:
    """Counts early deaths in a row: the first of them may be chance, many are not."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._early = 0

    def pause(self, lived: float) -> float:
        """Seconds to wait after a worker that lived for so many."""
        self._early = self._early + 1 if lived < EARLY else 0
        return self._backoff.delay(self._early) if self._early else 0.0
