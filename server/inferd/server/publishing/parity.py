"""Compares the outputs of a version with those of the original, or of another version, on the same rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array
from inferd.server.publishing.errors import PublishError

TOLERANCE: Final = 1e-3  # relative to the largest value of an output: rounding from FP64 to FP32 stays far below
MOST_DIFFERENT: Final = 0.01  # share of the rows: a tree may decide otherwise where FP32 rounds onto a threshold


@dataclass(frozen=True, slots=True)
class Parity:
    """rows           rows that were compared
    agreeing       rows in which every output agrees
    max_abs_diff   largest difference of a number in any output
    worst          name of the output with the most rows that differ, "" if all agree
    """

    rows: int
    agreeing: int
    max_abs_diff: float
    worst: str = ""

    @property
    def good(self) -> bool:
        """Whether the version may stand for the original."""
        return self.rows > 0 and self.rows - self.agreeing <= self.rows * MOST_DIFFERENT

    def __str__(self) -> str:
        differ = f", most differ in output {self.worst[:60]!r}" if self.worst else ""
        return f"{self.agreeing} of {self.rows} rows agree, largest difference {self.max_abs_diff:.3g}{differ}"

    def as_json(self) -> dict[str, Any]:
        """For provenance.json."""
        return {"rows": self.rows, "agreeing": self.agreeing, "max_abs_diff": self.max_abs_diff}


def compare(
    expected: Mapping[str, Array], got: Mapping[str, Array], pairs: Mapping[str, str], tolerance: float = TOLERANCE
) -> Parity:
    """Compares row by row. `pairs`: output of the version → output of the original. Raises PublishError if an output
    is missing, or has another number of rows or another shape."""
    rows = min((len(got[name]) for name in pairs if name in got and got[name].ndim), default=0)
    agree = np.ones(rows, bool)
    largest, worst, most = 0.0, "", 0
    for served, original in pairs.items():
        if served not in got or original not in expected:
            raise PublishError(
                f"output {served!r} cannot be compared: the version has {', '.join(sorted(got)) or 'none'}"
            )
        left, right = _rows(expected[original]), _rows(got[served])
        if left.shape[:1] != right.shape[:1] or left[0].size != right[0].size:
            given = list(expected[original].shape)
            raise PublishError(f"output {served!r} has shape {list(got[served].shape)}, the original gives {given}")
        fine, apart = _agree(left.reshape(len(left), -1), right.reshape(len(right), -1), tolerance)
        differ = int(np.count_nonzero(~fine))
        if differ > most:
            worst, most = served, differ
        agree &= fine
        largest = max(largest, apart)
    return Parity(rows, int(np.count_nonzero(agree)), largest, worst)


def accuracy(labels: Array, outputs: Mapping[str, Array], classes: Array | None = None) -> tuple[float, str] | None:
    """The share of rows whose label is right, and the name of the output that tells it: a column of labels, else the
    largest of several scores. `classes`: the label of each score. None if no output tells a label."""
    wanted = labels.reshape(-1)
    for name, array in outputs.items():
        if array.ndim and len(array) == len(wanted) and array.size == len(wanted) and _same_kind(array, wanted):
            return float(np.mean(_plain(array.reshape(-1)) == _plain(wanted))), name
    for name, array in outputs.items():
        if array.ndim == 2 and len(array) == len(wanted) and array.shape[1] > 1 and array.dtype.kind in "fV":
            best = np.argmax(array, axis=1)
            told = classes[best] if classes is not None and len(classes) == array.shape[1] else best
            if _same_kind(told, wanted):
                return float(np.mean(_plain(told) == _plain(wanted))), name
    return None


def _same_kind(a: Array, b: Array) -> bool:
    texts = "OSU"
    if a.dtype.kind in texts or b.dtype.kind in texts:
        return a.dtype.kind in texts and b.dtype.kind in texts
    return a.dtype.kind in "biu" and (b.dtype.kind in "biu" or bool(np.all(np.mod(b, 1) == 0)))


def _plain(array: Array) -> Array:
    if array.dtype.kind in "OS":
        return np.array([x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in array.tolist()])
    return array


def _rows(array: Array) -> Array:
    return array if array.ndim else array.reshape(1)


def _agree(left: Array, right: Array, tolerance: float) -> tuple[Array, float]:
    """Which rows agree, and the largest difference of a number."""
    if left.dtype.kind in "OSU" or right.dtype.kind in "OSU":
        return np.asarray(np.all(_texts(left) == _texts(right), axis=1)), 0.0
    x, y = left.astype(np.float64), right.astype(np.float64)
    finite = np.abs(x[np.isfinite(x)])
    scale = float(finite.max()) if finite.size else 0.0
    close = np.isclose(x, y, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    with np.errstate(invalid="ignore"):
        apart = np.abs(x - y)
    apart = apart[np.isfinite(apart)]
    return np.asarray(np.all(close, axis=1)), float(apart.max()) if apart.size else 0.0


def _texts(array: Array) -> Array:
    return _plain(array.reshape(-1)).astype(str).reshape(array.shape)
