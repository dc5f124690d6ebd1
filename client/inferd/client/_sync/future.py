"""The future of a prediction."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from inferd.client._shared.prediction import Prediction


class PredictionFuture(Future[Prediction]):
    """A Future whose waiters are notified at once when it is cancelled, also in `concurrent.futures.wait`.
    Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._notified = threading.Lock()

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        # A cancelled Future notifies its waiters only in set_running_or_notify_cancel, which must not be called twice.
        if self._notified.acquire(blocking=False):
            self.set_running_or_notify_cancel()
        return True
