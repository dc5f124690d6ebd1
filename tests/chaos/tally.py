"""Counts how the requests of a load end: with a right or a wrong answer, with an error, or not at all."""

from __future__ import annotations

import threading
import time
from collections import Counter

EXAMPLES = 5


class Tally:
    """Counts of one load. Thread-safe. At the end, requests that were sent and are in no other count are lost.

    sent      requests passed to a client; retries of the client are not counted
    answered  right answers
    wrong     wrong answers
    refused   requests that ended with an error, by (kind of client, status code)
    lost      requests that did not end before their deadline, which is long
    gap       longest time between two answers, in seconds
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self.sent = self.answered = self.wrong = self.lost = 0
        self.refused: Counter[tuple[str, str]] = Counter()
        self.gap = 0.0
        self.examples: list[str] = []

    def send(self) -> None:
        """Counts a request that is sent."""
        with self._lock:
            self.sent += 1

    def answer(self, right: bool, what: str = "") -> None:
        """Counts an answer. `what` describes a wrong one."""
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
        """Counts a request that ended with an error. DEADLINE_EXCEEDED counts as lost: there was no answer in time."""
        with self._lock:
            if code == "DEADLINE_EXCEEDED":
                self.lost += 1
                self._keep(f"lost by {kind}: {words}")
                return
            self.refused[kind, code] += 1
            if self.refused[kind, code] == 1:
                self._keep(f"refused to {kind}: {code}: {words}")

    def close(self) -> None:
        """Ends the counting, after all callers have ended or were given up: requests without an end are lost."""
        with self._lock:
            still = self.sent - self.answered - self.wrong - self.lost - self.refused.total()
            if still:
                self.lost += still
                self._keep(f"lost: {still} requests have no end at all")

    def _keep(self, words: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(words[:500])
