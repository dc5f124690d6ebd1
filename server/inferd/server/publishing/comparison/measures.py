"""What can be said of the outputs of two versions on the same rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array
from inferd.server.publishing.errors import PublishError

_TEXTS: Final = "OSU"
_CHANCE: Final = 0.05
_LEAST_LOST: Final = 5  # rows lost and none won: a chance of 0.5 ** 5, which is below 0.05
_MOST_EXACT: Final = 2000  # rows that differ; beyond, the binomial distribution is as good as normal


@dataclass(frozen=True, slots=True)
class Figures:
    """What the rows show; None where it cannot be told.

    accuracy      share of rows with the right label: of the first and of the second version
    lost, won     rows that the first has right and the second wrong, and the other way round
    chance        the chance that so many rows are lost if both are equally good (McNemar's exact test, one-sided)
    agreement     share of rows with the same decision
    decided_by    the output that tells labels and decisions
    cosine        mean similarity of a row's numbers, from -1 to 1
    max_abs_diff  largest difference of a number
    not_finite    numbers that are finite in the first and not in the second
    """

    rows: int
    accuracy: tuple[float, float] | None
    lost: int
    won: int
    chance: float
    agreement: float | None
    decided_by: str
    cosine: float | None
    max_abs_diff: float
    not_finite: int
    confusion: tuple[tuple[str, str, int], ...] = ()
    """Decisions that differ, most frequent first: of the first, of the second, rows."""

    @property
    def visible_drop(self) -> float:
        """The smallest drop of the accuracy that so many rows can show."""
        return _LEAST_LOST / self.rows if self.rows else 1.0


def rows_for(drop: float) -> int:
    """How many rows it takes to show such a drop."""
    return round(_LEAST_LOST / drop) if drop > 0 else 0


def figures(
    first: Mapping[str, Array], second: Mapping[str, Array], expected: Array | None = None, output: str | None = None
) -> Figures:
    """`expected`: labels, None if there are none. `output`: the output to read, None for all. Raises PublishError if
    the outputs have other names or shapes."""
    if first.keys() != second.keys():
        one, other = (", ".join(sorted(outputs)) or "none" for outputs in (first, second))
        raise PublishError(f"the versions have other outputs: {one}; {other}")
    if output is not None and output not in first:
        raise PublishError(f"gate.output: there is no output {output!r}; the outputs are {', '.join(sorted(first))}")
    for name in first:
        if first[name].shape != second[name].shape:
            shapes = f"{list(first[name].shape)} and {list(second[name].shape)}"
            raise PublishError(f"output {name!r} has two shapes on the same rows: {shapes}")
    names = [output] if output is not None else list(first)
    rows = max((len(first[name]) for name in names if first[name].ndim), default=0)
    names = [name for name in names if first[name].ndim and len(first[name]) == rows]
    labels = _labels(expected, rows)
    decided = next((name for name in _order(names, first) if decisions(first[name], labels) is not None), "")
    accuracy = agreement = None
    lost = won = 0
    confusion: tuple[tuple[str, str, int], ...] = ()
    if decided:
        a, b = decisions(first[decided], labels), decisions(second[decided], labels)
        assert a is not None
        assert b is not None
        agreement = float(np.mean(a == b)) if rows else None
        confusion = _confusion(a, b)
        if labels is not None:
            wanted = plain(labels)
            right, still = a == wanted, b == wanted
            accuracy = float(np.mean(right)), float(np.mean(still))
            lost, won = int(np.count_nonzero(right & ~still)), int(np.count_nonzero(~right & still))
    numbers = [name for name in names if first[name].dtype.kind not in _TEXTS]
    return Figures(
        rows,
        accuracy,
        lost,
        won,
        _chance(lost, won),
        agreement,
        decided,
        _cosine([first[n] for n in numbers], [second[n] for n in numbers], rows),
        max((_apart(first[n], second[n]) for n in numbers), default=0.0),
        sum(_spoilt(first[n], second[n]) for n in numbers),
        confusion,
    )


def decisions(array: Array, labels: Array | None = None) -> Array | None:
    """The decision of each row that an output tells: its label, text or whole number, or the place of the largest of
    several scores; None if it tells none. `labels`: of the rows; decisions must be of their kind."""
    texts = labels is not None and labels.dtype.kind in _TEXTS
    if array.size == len(array) and array.dtype.kind in "biu" + _TEXTS:
        if labels is not None and texts != (array.dtype.kind in _TEXTS):
            return None
        return plain(array.reshape(-1))
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fViu" and not texts:
        numbers = array.astype(np.float64)
        # A row without a number decides for nothing, also where the other version does the same.
        return np.where(np.isnan(numbers).any(axis=1), -1, np.argmax(np.nan_to_num(numbers, nan=-np.inf), axis=1))
    return None


def plain(array: Array) -> Array:
    """Texts as str, numbers as they are."""
    if array.dtype.kind in "OS":
        return np.array([x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in array.tolist()])
    return array


def _order(names: list[str], outputs: Mapping[str, Array]) -> list[str]:
    """Labels before scores."""
    return sorted(names, key=lambda name: outputs[name].size != len(outputs[name]))


def _labels(expected: Array | None, rows: int) -> Array | None:
    if expected is None or expected.size != rows or len(expected) != rows:
        return None  # outputs, or labels of other rows
    flat = expected.reshape(-1)
    if flat.dtype.kind == "f":
        if not np.all(np.isfinite(flat)) or not np.all(np.mod(flat, 1) == 0):
            return None
        return flat.astype(np.int64)
    return flat


def _chance(lost: int, won: int) -> float:
    total = lost + won
    if not total:
        return 1.0
    if total > _MOST_EXACT:
        from statistics import NormalDist

        return 1 - NormalDist(total / 2, (total**0.5) / 2).cdf(lost - 0.5)
    return float(sum(comb(total, k) for k in range(lost, total + 1)) / 2**total)


def _confusion(a: Array, b: Array) -> tuple[tuple[str, str, int], ...]:
    counts: dict[tuple[str, str], int] = {}
    for one, other in zip(a[a != b].tolist(), b[a != b].tolist(), strict=True):
        key = str(one)[:40], str(other)[:40]
        counts[key] = counts.get(key, 0) + 1
    return tuple((*key, count) for key, count in sorted(counts.items(), key=lambda item: -item[1])[:10])


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _cosine(first: list[Array], second: list[Array], rows: int) -> float | None:
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.dtype.kind in "fV"]
    if not pairs or not rows:
        return None
    x, y = (np.concatenate([_flat(pair[side]) for pair in pairs], axis=1) for side in (0, 1))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        found = np.where(lengths > 0, np.sum(x * y, axis=1) / lengths, np.all(x == y, axis=1).astype(np.float64))
    return float(np.mean(np.nan_to_num(found, nan=-1.0)))


def _apart(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    apart = apart[np.isfinite(apart)]
    return float(apart.max()) if apart.size else 0.0


def _spoilt(a: Array, b: Array) -> int:
    if a.dtype.kind not in "fV":
        return 0
    return int(np.count_nonzero(np.isfinite(a.astype(np.float64)) & ~np.isfinite(b.astype(np.float64))))


def as_json(found: Figures) -> dict[str, Any]:
    """For JSON and provenance."""
    return {
        "rows": found.rows,
        "accuracy": list(found.accuracy) if found.accuracy is not None else None,
        "lost": found.lost,
        "won": found.won,
        "chance": round(found.chance, 6),
        "agreement": found.agreement,
        "decided_by": found.decided_by,
        "cosine": found.cosine,
        "max_abs_diff": found.max_abs_diff,
        "not_finite": found.not_finite,
        "differ": [list(item) for item in found.confusion],
    }
