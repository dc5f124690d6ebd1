"""Whether a load is still wanted, and how one is ended that waits for another process and would not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LoadCancelled(Exception):
    """The version is no longer wanted, or other content is; what was loaded of it is closed again. Says why."""


class Cancellation:
    """Of one load. Thread-safe; calling it gives whether the load is unwanted now.

    It may be taken back: a load that has not noticed goes on. One that was cut short does not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cut: Callable[[str], None] | None = None
        self.reason = ""
        """Why the load is unwanted now, "" while it is wanted."""
        self.cut_short = ""
        """Why it was cut short, "" when it was not."""

    def __call__(self) -> bool:
        return bool(self.reason)

    def cancel(self, reason: str) -> None:
        """The load is unwanted. Does not block."""
        with self._lock:
            self.reason = self.reason or reason
            cut, self._cut = self._cut, None
            if cut is None:
                return
            self.cut_short = self.reason
        cut(self.cut_short)

    def take_back(self) -> None:
        """The load is wanted after all."""
        self.reason = ""

    def check(self) -> None:
        """Raises LoadCancelled when the load is unwanted."""
        reason = self.reason
        if reason:
            raise LoadCancelled(reason)

    def arm(self, cut: Callable[[str], None]) -> None:
        """`cancel` calls `cut` from now on, once, with the reason. Raises LoadCancelled when it has come already."""
        with self._lock:
            self.check()
            self._cut = cut

    def disarm(self) -> None:
        """The load has come to its end: nothing cuts it short any more. Raises LoadCancelled when something has."""
        with self._lock:
            self._cut = None
            if self.cut_short:
                raise LoadCancelled(self.cut_short)

    @contextmanager
    def instead_of_errors(self) -> Iterator[None]:
        """What goes wrong because the load was cut short is LoadCancelled."""
        try:
            yield
        except Exception as error:
            if self.cut_short:
                raise LoadCancelled(self.cut_short) from error
            raise
