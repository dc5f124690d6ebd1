"""Continuous load in which every answer is checked and every failure is kept. Tests can wait for answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from inferd.client import NO_RETRIES, Client, InferdError, RetryPolicy

LIMIT = 60.0


@dataclass
class Seen:
    """What the callers have received so far.

    answers    number of answers
    markers    number of answers by marker
    versions   number of answers by version
    failures   errors of failed requests
    wrong      wrong answers, as text
    orders     for each caller, the markers in the order of its answers; consecutive equal markers are listed once
    """

    answers: int = 0
    markers: dict[float, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    failures: list[InferdError] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    orders: list[list[float]] = field(default_factory=list)


class Traffic:
    """Threads that call a model y = x + marker until the end of the `with` block.

    By default each thread has its own client, and requests are not retried. `share`: all threads use one client.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        threads: int = 4,
        label: str | None = None,
        retry: RetryPolicy = NO_RETRIES,
        share: bool = False,
    ) -> None:
        self._shared = Client(address, retry=retry, timeout=20.0) if share else None
        self._address = address
        self._retry = retry
        self._model = model
        self._label = label
        self._stop = threading.Event()
        self._news = threading.Condition()
        self.seen = Seen(orders=[[] for _ in range(threads)])
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> Seen:
        """Stops the callers. Returns what they have received."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._shared is not None:
            self._shared.close()
        return self.seen

    def until(self, what: str, condition: Callable[[Seen], bool]) -> Seen:
        """Waits until `condition` is true; `what` describes it. Raises AssertionError after LIMIT seconds."""
        deadline = time.monotonic() + LIMIT
        with self._news:
            while not condition(self.seen):
                if not self._news.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"never seen: {what}; seen: {self.seen}")
        return self.seen

    def more(self, count: int = 200) -> Seen:
        """Waits for so many more answers."""
        target = self.seen.answers + count
        return self.until(f"{count} more answers", lambda seen: seen.answers >= target)

    def marker(self, marker: float) -> Seen:
        """Waits until every caller has received an answer with this marker."""
        return self.until(f"marker {marker}", lambda seen: all(marker in order for order in seen.orders))

    def _call(self, index: int) -> None:
        rng = np.random.default_rng(index)
        order = self.seen.orders[index]
        with (
            nullcontext(self._shared)
            if self._shared
            else Client(self._address, retry=self._retry, timeout=20.0) as client
        ):
            while not self._stop.is_set():
                x = rng.integers(0, 1000, size=(1 + index % 3, 4)).astype(np.float32)
                try:
                    answer = client.predict(self._model, {"x": x}, label=self._label)
                except InferdError as error:
                    with self._news:
                        self.seen.failures.append(error)
                        self._news.notify_all()
                    self._stop.wait(0.05)
                    continue
                added = answer["y"] - x
                marker = float(added.flat[0])
                with self._news:
                    self.seen.answers += 1
                    self.seen.markers[marker] = self.seen.markers.get(marker, 0) + 1
                    self.seen.versions[answer.version] = self.seen.versions.get(answer.version, 0) + 1
                    if not order or order[-1] != marker:
                        order.append(marker)
                    if answer["y"].shape != x.shape or not np.all(added == marker):
                        self.seen.wrong.append(f"{x.tolist()} -> {answer['y'].tolist()}")
                    self._news.notify_all()
