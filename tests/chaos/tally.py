"""What became of every request of a load: answered and right, told an error, wrong, or lost."""

from __future__ import annotations

import threading
import time
from collections import Counter

EXAMPLES = 5


class Tally:
    """Counts of one load. Thread-safe. Whatever was sent and is in none of the counts at the end counts as lost.

    sent      requests given to a client; its own retries are not counted again
    answered  answers that are right
    wrong     answers that are not
    refused   by (kind of client, code): requests that ended with an error that says why
    lost      requests that had no end before their deadline, which is ample
    gap       seconds: the longest time between two answers
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self.sent = self.answered = self.wrong = self.lost = 0
        self.refused: Counter[tuple[str, str]] = Counter()
        self.gap = 0.0
        self.examples: list[str] = []

    def send(self) -> None:
        """A request goes out."""
        with self._lock:
            self.sent += 1

    def answer(self, right: bool, what: str = "") -> None:
        """An answer came."""
        now = time.monotonic()
        with self._lock:
            if right:
                self.answered += 1
            else:
                self.wrong += 1
                self._keep(f"wrong: {what}")
            if self._last:
                self.gap = max(self.gap, now - self._last)
            self._last = now

    def refuse(self, kind: str, code: str, words: str) -> None:
        """A request ended with an error. DEADLINE_EXCEEDED means that nobody said anything in all that time."""
        with self._lock:
            if code == "DEADLINE_EXCEEDED":
                self.lost += 1
                self._keep(f"lost by {kind}: {words}")
                return
            self.refused[kind, code] += 1
            if self.refused[kind, code] == 1:
                self._keep(f"refused to {kind}: {code}: {words}")

    def close(self) -> None:
        """All callers have ended, or were given up: what is open is lost."""
        with self._lock:
            still = self.sent - self.answered - self.wrong - self.lost - self.refused.total()
            if still:
                self.lost += still
                self._keep(f"lost: {still} requests have no end at all")

    def _keep(self, words: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(words[:500])
