"""Whether a load is still wanted, and how a load is ended that waits for another process and would not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LoadCancelled(Exception):
    """The version is not wanted any more, or not with this content; what was loaded of it is closed. The message says
    why."""


class Cancellation:
    """The cancellation of one load. Thread-safe; calling it gives whether the load is cancelled now.

    A cancellation may be taken back: a load that has not noticed it goes on. A load that was cut short does not.

    reason      why the load is cancelled now, "" when it is not
    cut_short   why it was cut short, "" when it was not
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cut: Callable[[str], None] | None = None
        self.reason = ""
        self.cut_short = ""

    def __call__(self) -> bool:
        return bool(self.reason)

    def cancel(self, reason: str) -> None:
        """Cancels the load, and cuts it short if it can be. The first reason counts. Does not block."""
        with self._lock:
            self.reason = self.reason or reason
            cut, self._cut = self._cut, None
            if cut is None:
                return
            self.cut_short = self.reason
        cut(self.cut_short)

    def take_back(self) -> None:
        """The load is wanted again."""
        self.reason = ""

    def check(self) -> None:
        """Raises LoadCancelled when the load is cancelled."""
        reason = self.reason
        if reason:
            raise LoadCancelled(reason)

    def arm(self, cut: Callable[[str], None]) -> None:
        """From now on `cancel` calls `cut`, once, with the reason. Raises LoadCancelled when the load is cancelled
        already."""
        with self._lock:
            self.check()
            self._cut = cut

    def disarm(self) -> None:
        """The load is complete and cannot be cut short any more. Raises LoadCancelled when it was."""
        with self._lock:
            self._cut = None
            if self.cut_short:
                raise LoadCancelled(self.cut_short)

    @contextmanager
    def instead_of_errors(self) -> Iterator[None]:
        """Within this, an error of a load that was cut short becomes LoadCancelled."""
        try:
            yield
        except Exception as error:
            if self.cut_short:
                raise LoadCancelled(self.cut_short) from error
            raise
