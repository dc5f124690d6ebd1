"""How long to wait before a worker that died is started again."""

from __future__ import annotations

from inferd.server.lifecycle.reconcile.backoff import Backoff

EARLY = 30.0  # seconds; a worker that lived for less than this died early


class RestartBackoff:
    """Counts early deaths in a row. Each of them makes the next wait longer; a worker that lived long resets it."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._early = 0

    def pause(self, lived: float) -> float:
        """Seconds to wait before the restart of a worker that lived for `lived` seconds."""
        self._early = self._early + 1 if lived < EARLY else 0
        return self._backoff.delay(self._early) if self._early else 0.0
