"""The batching probe: runs a model to find a row that gets another output in a batch than alone.

Three distinct rows run alone, as pairs in both orders, as three, and in the largest batch. Then the row in the middle
is replaced by rows that a model may react to: empty and long texts, large and negative numbers, zeros, equal values,
NaN and infinity (see `Case.hostile`).

    the same row gets another output the second time   stateful (or random): unbatched, one instance, one request at a
                                                       time
    an output lacks the batch axis, a row's output in
    a batch differs from its output alone, or changes
    with the contents of another row                   unbatched
    all three rows get the same output                 only the replaced rows show something
    the model refuses a row alone                      nothing is shown: the proof stands
    the model refuses the largest batch                half of that size is tried, and so on
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inferd.backends.api import Array, BackendError, Signature
from inferd.server.scheduling.qualification.compare import (
    Outputs,
    amplified,
    content_difference,
    difference,
    tolerance_of,
)
from inferd.server.scheduling.qualification.samples import ROWS, Case, NoSample, Samples

_log = logging.getLogger("inferd.scheduling")
_MOST_BYTES = 2**31  # inputs and outputs of the largest batch that is tried
_LONGEST = 10.0  # seconds after which no further hostile row is tried: a slow model must not wait for minutes
Run = Callable[[dict[str, Array]], Outputs]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one signature.

    limit      largest number of rows in a batch; 0: unbatched
    reason     why the limit is lower than configured, or not probed; "" if the configured limit was confirmed
    basis      why it is batched or not, in one word for metrics: "off", "declared", "contested" (declared, and the
               server has found a reason against it), "proven", "unproven"
    stateful   answers depend on earlier calls
    silent     the probe shows nothing: the model refuses its data, or rows that get mixed up would not show
    splits     a request with more rows may be run in parts: that rows are independent is shown, not only declared
    equal      groups of dimensions, as (input, axis), that the proof takes as equal
    """

    limit: int
    reason: str = ""
    basis: str = "unproven"
    stateful: bool = False
    silent: bool = False
    splits: bool = False
    equal: tuple[tuple[tuple[str, int], ...], ...] = ()


class _Refuted(Exception):
    """The rows show that the model must not be batched."""

    def __init__(self, reason: str, *, stateful: bool = False) -> None:
        super().__init__(reason)
        self.verdict = Verdict(0, reason, stateful=stateful)


class _Inconclusive(Exception):
    """These rows show nothing; other rows may."""


def probe_batching(signature: Signature, run: Run, samples: Samples, limit: int, *, non_finite: bool = True) -> Verdict:
    """Probes one signature on one instance. `run` executes the model; any exception from it means that the model
    refuses the data.

    `limit` is the configured number of rows in the largest batch, at least 2. `non_finite`: NaN and infinity are tried,
    too, which may be too much for a model with a loop that ends when a value has converged.
    """
    tolerance = tolerance_of(signature)
    refusal = ""
    try:
        for group in samples.groups():
            confirmed: tuple[Case, list[Outputs]] | None = None
            for case in group:
                try:
                    alone = [run(case.stack([row])) for row in range(ROWS)]
                except Exception as error:
                    refusal = refusal or f"{type(error).__name__}: {error}"
                    break
                try:
                    _examine(run, case, alone, limit, tolerance)
                except _Inconclusive as inconclusive:
                    refusal = str(inconclusive)
                    _provoke(run, case, limit, tolerance, non_finite=non_finite)
                    continue
                except _Refuted:
                    _check_state(run, case, alone[0], tolerance)  # a batch that leaves state behind is the worse result
                    raise
                confirmed = case, alone
            if confirmed is not None:
                verdict = _largest(run, *confirmed, limit=limit, tolerance=tolerance)
                _provoke(run, confirmed[0], verdict.limit, tolerance, non_finite=non_finite)
                return verdict
    except NoSample as missing:
        return Verdict(0, f"not proven: {missing}", silent=True)
    except _Refuted as refuted:
        return refuted.verdict
    kind = "the declared sample" if samples.declared else "seeded data"
    reason = f"not proven: {_short(refusal)} ({kind}; declare samples or set batching.mode: trusted)"
    return Verdict(0, reason, silent=True)


def detect_state(signature: Signature, run: Run, samples: Samples) -> bool:
    """Whether the same row gets different outputs in two runs. False if the model refuses all data."""
    tolerance = tolerance_of(signature)
    try:
        for group in samples.groups():
            for case in group:
                try:
                    first, second = run(case.stack([0])), run(case.stack([0]))
                except Exception:
                    break
                return difference(first, second, tolerance) is not None
    except NoSample:
        pass
    return False


def _examine(run: Run, case: Case, alone: Sequence[Outputs], limit: int, tolerance: float) -> None:
    _check_state(run, case, alone[0], tolerance)
    for outputs in alone:
        _check_axis(outputs, 1)
    if any(array.dtype.kind in "fc" and not np.isfinite(array).all() for out in alone for array in out.values()):
        raise _Inconclusive("the model gives NaN or infinity")
    for i, j in ((0, 1), (0, 2), (1, 2)):
        if difference(alone[i], alone[j], tolerance) is None:
            raise _Inconclusive("the model answers different rows alike, so rows that get mixed up would not show")
    orders = ([0, 1], [1, 0]) if limit < ROWS else ([0, 1], [1, 0], [0, 1, 2])
    for order in orders:
        try:
            together = run(case.stack(order))
        except Exception as error:
            raise _Refuted(
                f"the model refuses {len(order)} rows: {_short(f'{type(error).__name__}: {error}')}"
            ) from error
        _check_rows(run, case, together, order, alone, tolerance)
    _check_state(run, case, alone[0], tolerance)


def _largest(run: Run, case: Case, alone: Sequence[Outputs], *, limit: int, tolerance: float) -> Verdict:
    """Finds the largest batch that works: `limit`, or half of it, and so on. Batches of up to three rows have been
    confirmed before."""
    rows, refusal = limit, ""
    each = sum(array.nbytes for array in (*case.stack([0]).values(), *alone[0].values()))
    if rows * each > _MOST_BYTES:
        rows = max(ROWS, _MOST_BYTES // each)
        refusal = f"a batch of more than {rows} rows takes more than {_MOST_BYTES >> 30} GiB"
    while rows > ROWS:
        order = list(range(rows))
        try:
            together = run(case.stack(order))
        except Exception as error:
            refusal = refusal or f"the model refuses {rows} rows: {_short(f'{type(error).__name__}: {error}')}"
            rows //= 2
            continue
        _check_rows(run, case, together, order, alone, tolerance)
        return Verdict(rows, refusal, "proven", splits=True)
    return Verdict(min(limit, ROWS), refusal, "proven", splits=True)


def _check_state(run: Run, case: Case, before: Outputs, tolerance: float) -> None:
    try:
        again = run(case.stack([0]))
    except Exception as error:
        raise _Refuted(f"the model refuses a row that it took before: {_short(str(error))}", stateful=True) from error
    found = difference(before, again, tolerance)
    if found is not None:
        raise _Refuted(f"stateful: the same row gets a different output {found}", stateful=True)


def _check_axis(outputs: Outputs, rows: int) -> None:
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != rows:
            raise _Refuted(f"output {name!r} does not carry the batch axis: shape {list(array.shape)} for {rows} rows")


def _check_rows(
    run: Run, case: Case, together: Outputs, order: Sequence[int], alone: Sequence[Outputs], tolerance: float
) -> None:
    _check_axis(together, len(order))
    for at, row in enumerate(order):
        got = share(together, at)
        found = difference(alone[row % ROWS], got, tolerance)
        if found is None:
            continue
        if amplified(alone[row % ROWS], got, discrete=False):
            copies = run(case.stack([row] * len(order)))
            _check_axis(copies, len(order))
            if content_difference(got, share(copies, at), tolerance) is None:
                continue  # it is the number of rows, and so rounding, and not what the other rows hold
        raise _Refuted(f"rows influence each other: in a batch of {len(order)} a row gets a different output {found}")


def _provoke(run: Run, case: Case, limit: int, tolerance: float, *, non_finite: bool) -> None:
    """Replaces one row of a batch by rows that a model may react to. The others must not notice."""
    order = [0, 1, 2] if limit >= ROWS else [0, 1]
    usual = run(case.stack(order))
    end = time.monotonic() + _LONGEST
    for kind, row in case.hostile(non_finite=non_finite):
        if time.monotonic() > end:
            return
        inputs = case.stack(order)
        for name, array in row.items():
            inputs[name][1, ...] = array
        try:
            together = run(inputs)
        except Exception as error:
            try:
                run(case.stack([0]) | {name: array[np.newaxis] for name, array in row.items()})
            except Exception:
                continue  # it refuses such a row alone, too
            refused = f"the model takes a row of {kind} alone, and refuses it in a batch: {_short(str(error))}"
            raise _Refuted(refused) from error
        _check_axis(together, len(order))
        for at in (0, 2)[: len(order) - 1]:
            found = content_difference(share(usual, at), share(together, at), tolerance)
            if found is not None:
                raise _Refuted(
                    f"rows influence each other: beside a row of {kind} a row gets a different output {found}"
                )


def share(outputs: Outputs, at: int) -> Outputs:
    """The outputs of one row of a batch."""
    return {name: array[at : at + 1] for name, array in outputs.items()}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def try_runs(run: Run, inputs: dict[str, Array], runs: int) -> Exception | None:
    """Runs the same inputs `runs` times. Returns the first error, None if there was none."""
    try:
        for _ in range(runs):
            run(inputs)
    except Exception as error:
        if not isinstance(error, BackendError):
            _log.warning("warm-up: unexpected %s: %s", type(error).__name__, error)
        return error
    return None
