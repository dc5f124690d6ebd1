"""The future of a prediction."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from inferd.client._shared.prediction import Prediction


class PredictionFuture(Future[Prediction]):
    """Whoever waits for it, with `concurrent.futures.wait` too, sees at once that it was cancelled. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._notified = threading.Lock()

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        # Left to itself, a cancelled future tells its waiters only when somebody begins to work on it; once only, for
        # a second time is an error to it.
        if self._notified.acquire(blocking=False):
            self.set_running_or_notify_cancel()
        return True
