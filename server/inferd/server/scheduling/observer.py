"""What the scheduler tells the outside: batches that ran, requests that were dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BatchObserver(Protocol):
    """Counts. Called on the scheduler's threads and on those of its callers: quick, thread-safe, must not raise."""

    def batch(self, signature: str, requests: Sequence[object], rows: int, compute_seconds: float) -> None:
        """One execution of the model, after its requests were answered. `rows` is 1 for a model that is not batched."""
        ...

    def dropped(self, reason: str) -> None:
        """One request never ran. `reason`: "expired", "cancelled", "full", "late" (it would have expired)."""
        ...


class NullObserver:
    """Looks away."""

    def batch(self, signature: str, requests: Sequence[object], rows: int, compute_seconds: float) -> None:
        pass

    def dropped(self, reason: str) -> None:
        pass
