"""A continuous, verified load on one model: several callers with one tally."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from chaos.callers import DEADLINE, Caller, Target
from chaos.tally import Tally

PATIENCE = 90.0  # seconds to wait for more answers: no fault may take so long, even on a busy machine
_never = threading.Event()


class Load:
    """Callers that run during the `with` block. At its end, the requests in flight are awaited; requests that do not
    end count as lost."""

    def __init__(self, target: Target, callers: Sequence[Caller]) -> None:
        self.tally = Tally()
        self._stop = threading.Event()
        self._broken: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(caller, target), name=f"load-{target.model}", daemon=True)
            for caller in callers
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        deadline = time.monotonic() + DEADLINE + 15
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.tally.close()
        if self._broken and kind is None:
            raise AssertionError(f"a caller of the suite itself failed: {self._broken[0]!r}") from self._broken[0]

    def more(self, count: int) -> None:
        """Waits for so many more right answers. Raises AssertionError if they do not come in time."""
        self.reach(self.tally.answered + count)

    def reach(self, answers: int, limit: float = PATIENCE) -> None:
        """Waits until there are so many right answers altogether. Raises AssertionError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while self.tally.answered < answers:
            if self._broken:
                raise AssertionError(f"a caller of the suite itself failed: {self._broken[0]!r}") from self._broken[0]
            if time.monotonic() > deadline:
                seen = self.tally
                raise AssertionError(
                    f"{answers} answers never came within {limit:.0f} s: {seen.answered} of {seen.sent}; "
                    f"refused {dict(seen.refused)}; {seen.examples}"
                )
            _never.wait(0.01)

    def _run(self, caller: Caller, target: Target) -> None:
        try:
            caller(target, self.tally, self._stop)
        except BaseException as error:  # raised again by the methods that wait for answers
            self._broken.append(error)
