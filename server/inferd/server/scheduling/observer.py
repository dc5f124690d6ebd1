"""The scheduler's interface to the metrics: batches that ran, requests that were dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BatchObserver(Protocol):
    """Counts batches and dropped requests. Called on the scheduler's threads and on those of its callers: must be quick
    and thread-safe and must not raise."""

    def batch(self, signature: str, requests: Sequence[object], rows: int, compute_seconds: float) -> None:
        """One run of the model, called after its requests were answered. `rows` is 1 for a model that is not
        batched."""
        ...

    def dropped(self, reason: str) -> None:
        """One request did not run. `reason`: "expired", "cancelled", "full", or "late" (predicted to expire)."""
        ...

    def verified(self, rows: int, different: int) -> None:
        """Rows of batches were run again alone; the outputs of `different` of them were others in the batch."""
        ...


class NullObserver:
    """Counts nothing."""

    def batch(self, signature: str, requests: Sequence[object], rows: int, compute_seconds: float) -> None:
        pass

    def dropped(self, reason: str) -> None:
        pass

    def verified(self, rows: int, different: int) -> None:
        pass
