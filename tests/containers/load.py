"""Callers that go on until they are told to stop; every answer is checked, every failure kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from containers.tools import Failure, expect, wait_for

_MOST_KEPT = 50


class Callers:
    """Threads that call again and again. `call` answers a row of numbers, or raises; `expected` is what it must
    answer. `refused`: whether a failure is a refusal that a server may give while it stops."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Callable[[], Any]],
        expected: Any,
        *,
        threads: int = 4,
        pause: float = 0.0,
        refused: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:
        self.name = name
        self.failures: list[str] = []
        self.answers = 0
        self.refusals = 0
        self._expected = np.asarray(expected)
        self._refused = refused
        self._make = make
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Lets every caller finish what it has begun."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def more(self, count: int, limit: float = 120.0) -> None:
        """Waits for so many further answers. Raises Failure."""
        wanted = self.answers + count
        wait_for(lambda: self.answers >= wanted or bool(self.failures), f"{self.name}: {count} answers", limit)

    def check(self) -> None:
        """Raises Failure if anything has failed."""
        if self.failures:
            raise Failure(f"{self.name}: {len(self.failures)} of {self.answers} failed: {'; '.join(self.failures[:3])}")
        expect(self.answers, f"{self.name}: no answer")

    def _run(self) -> None:
        call = self._make()
        while not self._stop.is_set():
            try:
                answer = np.asarray(call())
                right = np.allclose(answer, self._expected, atol=1e-5)
                failure = "" if right else f"answered {answer}, expected {self._expected}"
            except Exception as error:
                if self._refused(error):
                    with self._lock:
                        self.refusals += 1
                    time.sleep(0.02)
                    continue
                failure = f"{type(error).__name__}: {error}"[:300]
            with self._lock:
                if not failure:
                    self.answers += 1
                elif len(self.failures) < _MOST_KEPT:
                    self.failures.append(failure)
            if self._pause:
                time.sleep(self._pause)
