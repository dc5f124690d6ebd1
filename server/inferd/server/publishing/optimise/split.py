"""Divides sample rows: some calibrate, others judge. Pure.

The rows that a variant was calibrated with say too much good of it. Which row does what follows from its content alone,
so that it stays the same from one run to the next, and equal rows are never on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import numpy as np

from inferd.backends.api import Array
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.rows import EXPECTED, SampleRows

CALIBRATION: Final = 256
"""Rows that calibrate at most."""
_EVERY: Final = 4  # one row in so many calibrates


def divided(sample: SampleRows, calibration: SampleRows | None) -> tuple[dict[str, Array], dict[str, Array]]:
    """The rows that calibrate, and those that judge with their `expected`. `calibration`: rows of their own that
    calibrate; those of the sample that are the same do not judge. Raises PublishError if one side is empty."""
    arrays = dict(sample.inputs)
    names = _with_rows(arrays, sample.rows)
    marks = _marks(arrays, names, sample.rows)
    if calibration is None:
        known = {mark for mark in marks if mark[0] % _EVERY == 0}
        calibrating = _picked(arrays, names, [i for i, mark in enumerate(marks) if mark in known][:CALIBRATION])
    else:
        if calibration.inputs.keys() != arrays.keys():
            raise PublishError(
                f"the calibration rows have inputs {', '.join(calibration.inputs)}, the sample has {', '.join(arrays)}"
            )
        own = dict(calibration.inputs)
        known = set(_marks(own, _with_rows(own, calibration.rows), calibration.rows))
        calibrating = _picked(own, _with_rows(own, calibration.rows), list(range(calibration.rows))[: 4 * CALIBRATION])
    judges = [i for i, mark in enumerate(marks) if mark not in known]
    judging = _picked(arrays, names, judges)
    if sample.expected is not None:
        judging[EXPECTED] = sample.expected[judges] if len(sample.expected) == sample.rows else sample.expected
    if not judges or not known:
        raise PublishError(f"{sample.rows} sample rows are too few: some calibrate, others judge")
    return calibrating, judging


def _with_rows(arrays: Mapping[str, Array], rows: int) -> list[str]:
    return [name for name, array in arrays.items() if array.ndim and len(array) == rows]


def _picked(arrays: Mapping[str, Array], names: list[str], rows: list[int]) -> dict[str, Array]:
    return {name: array[rows] if name in names else array for name, array in arrays.items()}


def _marks(arrays: Mapping[str, Array], names: list[str], rows: int) -> list[bytes]:
    """A digest of each row's content."""
    marks = [blake2b(digest_size=16) for _ in range(rows)]
    for name in names:
        array = np.ascontiguousarray(arrays[name])
        for i in range(rows):
            marks[i].update(array[i : i + 1].tobytes())
    return [mark.digest() for mark in marks]
