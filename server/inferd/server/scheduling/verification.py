"""Verification in production: a share of the rows of batches runs again, alone, and must give the same
(`batching.verify`).

    the loop's or a worker's batches   count towards the next row to verify
    a worker's batch                   its picked rows are copied before the run, with their outputs after it
    after its requests are answered    the worker runs each picked row alone and compares

So callers of the batch never wait for it. Those of the next batch of the same instance wait for as many runs of one row
as rows were picked: `share` times the rows of the batch on average. While a row is due, the loop leaves its batches to
the workers. A row whose output differs costs one more run of the batch's size, which tells rounding from influence.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from inferd.backends.api import Array, Instance, Signature, Traits
from inferd.server.scheduling.batch_former import Batch
from inferd.server.scheduling.buffers import Buffers
from inferd.server.scheduling.execution import Executor
from inferd.server.scheduling.inline import InlineBudget
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.overlap import OverlappedRun
from inferd.server.scheduling.qualification.compare import (
    Outputs,
    amplified,
    content_difference,
    difference,
    tolerance_of,
)

_log = logging.getLogger("inferd.scheduling")


@dataclass(frozen=True, slots=True)
class _Picked:
    """Rows of a batch that are to be verified: `rows` of the whole batch; of each picked row its place, its inputs and
    its outputs in the batch."""

    signature: str
    wanted: Sequence[str] | None
    rows: int
    items: Sequence[tuple[int, Mapping[str, Array], Outputs]]


class Verification:
    """The verification of one servable. Thread-safe."""

    def __init__(
        self,
        name: str,
        share: float,
        signatures: Mapping[str, Signature],
        batched: Mapping[str, frozenset[str]],
        *,
        observer: BatchObserver,
        budget: InlineBudget,
        found: Callable[[str, str], None],
    ) -> None:
        """
        share     of the rows, above 0 and at most 1
        batched   by signature, the inputs that may have a batch axis
        budget    kept from the loop while a row is due
        found     called with the signature and the difference, on a worker
        """
        self._name = name
        self._share = share
        self._signatures = signatures
        self._batched = batched
        self._observer = observer
        self._budget = budget
        self._found = found
        self._lock = threading.Lock()
        self._random = Random()
        self._owed = self._random.random()  # several servers must not verify in step
        self._paused = False
        self._refused = False

    def rows(self, signature: str, inputs: Mapping[str, Array]) -> int:
        """The rows of a run; 0: it has no batch axis."""
        for name in self._batched[signature]:
            array = inputs.get(name)
            if array is not None and array.ndim:
                return len(array)
        return 0

    def pick(self, rows: int) -> list[int]:
        """The rows to verify of a batch with several rows."""
        with self._lock:
            self._owed = min(self._owed + rows * self._share, rows)
            count = int(self._owed)
            self._owed -= count
        return sorted(self._random.sample(range(rows), count)) if count else []

    def passed(self, rows: int) -> None:
        """A batch with several rows has run on the loop, where nothing is verified."""
        with self._lock:
            self._owed = min(self._owed + rows * self._share, rows)
            if self._owed >= 1 and not self._paused:
                self._paused = True
                self._budget.pause()

    def ended(self) -> None:
        """A worker has run a batch."""
        with self._lock:
            if self._paused:
                self._paused = False
                self._budget.resume()

    def row(self, signature: str, inputs: Mapping[str, Array], at: int) -> dict[str, Array]:
        """A copy of the inputs of one row."""
        batched = self._batched[signature]
        return {
            name: (array[at : at + 1] if name in batched and array.ndim else array).copy()
            for name, array in inputs.items()
        }

    def repeated(self, signature: str, row: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """The inputs of a batch of copies of one row."""
        batched = self._batched[signature]
        return {
            name: np.repeat(array, rows, axis=0) if name in batched and array.ndim else array
            for name, array in row.items()
        }

    def differs(self, signature: str, alone: Outputs, got: Outputs, copies: Callable[[], Outputs]) -> str | None:
        """How `got`, the outputs of a row in a batch, differs from its outputs alone; None if by rounding at most.
        `copies` gives the row's outputs in a batch of copies of itself."""
        tolerance = tolerance_of(self._signatures[signature])
        found = difference(alone, got, tolerance)
        if found is None or (
            (amplified(alone, got, discrete=True) or _odd(alone, got))
            and not content_difference(copies(), got, tolerance)
        ):
            return None
        return found

    def told(self, signature: str, differences: Sequence[str], rows: int) -> None:
        """`rows` rows were verified, with these differences."""
        self._observer.verified(rows, len(differences))
        if differences:
            self._found(signature, differences[0])

    def refused(self, signature: str, error: Exception) -> None:
        """The model has failed with a row alone."""
        if not self._refused:
            self._refused = True
            _log.warning("%s: a row of signature %s cannot be verified: %s", self._name, signature, error)


def _odd(alone: Outputs, got: Outputs) -> bool:
    """Whether a float output is NaN or infinite. Kernels treat such values differently from place to place."""
    arrays = (array for outputs in (alone, got) for array in outputs.values() if array.dtype.kind in "fc")
    return any(not np.isfinite(array).all() for array in arrays)


class WatchedInstance:
    """An instance of a worker, some of whose rows are verified. Not thread-safe, like the worker's executor."""

    def __init__(self, instance: Instance, verification: Verification, traits: Traits) -> None:
        self._instance = instance
        self._verification = verification
        self._buffers = Buffers(traits.alignment)
        self._picked: list[_Picked] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """As Instance.run."""
        verification = self._verification
        rows = verification.rows(signature, inputs)
        # The inputs are copied before the run, because the model may write into them.
        places = verification.pick(rows) if rows > 1 else []
        copies = [verification.row(signature, inputs, at) for at in places]
        got = self._instance.run(signature, inputs, outputs)
        if places and all(array.ndim and len(array) == rows for array in got.values()):
            shares = [{name: array[at : at + 1].copy() for name, array in got.items()} for at in places]
            items = list(zip(places, copies, shares, strict=True))
            self._picked.append(_Picked(signature, outputs, rows, items))
        return got

    def close(self) -> None:
        """As Instance.close."""
        self._instance.close()

    def after(self, run: Callable[[Batch], float]) -> Callable[[Batch], float]:
        """`run`, and then the verification of the picked rows."""

        def run_and_verify(batch: Batch) -> float:
            seconds = run(batch)
            picked, self._picked = self._picked, []
            for each in picked:
                self._verify(each)
            self._verification.ended()
            return seconds

        return run_and_verify

    def _verify(self, picked: _Picked) -> None:
        verification, signature = self._verification, picked.signature
        found: list[str] = []
        verified = 0
        for at, row, got in picked.items:
            try:
                alone = self._run(picked, row)

                def copies(row: Mapping[str, Array] = row, at: int = at) -> Outputs:
                    together = self._run(picked, verification.repeated(signature, row, picked.rows))
                    return {name: array[at : at + 1] for name, array in together.items()}

                differs = verification.differs(signature, alone, got, copies)
            except Exception as error:
                verification.refused(signature, error)
                continue
            verified += 1
            if differs is not None:
                found.append(f"{differs} in a batch of {picked.rows}")
        verification.told(signature, found, verified)

    def _run(self, picked: _Picked, inputs: Mapping[str, Array]) -> dict[str, Array]:
        # Copies: they are aligned, and the model may write into them.
        own = {name: self._buffers.copy(name, array) for name, array in inputs.items()}
        outputs = self._instance.run(picked.signature, own, picked.wanted)
        return {name: array.copy() for name, array in outputs.items()}


class CountedRuns:
    """The executor on the loop, whose batches only count towards the next row to verify."""

    def __init__(self, executor: Executor, verification: Verification) -> None:
        self._executor = executor
        self._verification = verification

    def run(self, batch: Batch) -> float:
        """As Executor.run."""
        seconds = self._executor.run(batch)
        if batch.rows > 1:
            self._verification.passed(batch.rows)
        return seconds

    def prepare(self, batch: Batch) -> OverlappedRun | None:
        """As Executor.prepare."""
        return self._executor.prepare(batch)

    def compute(self, run: OverlappedRun) -> None:
        """As Executor.compute."""
        self._executor.compute(run)

    def finish(self, run: OverlappedRun) -> None:
        """As Executor.finish."""
        self._executor.finish(run)
        if run.batch.rows > 1:
            self._verification.passed(run.batch.rows)
