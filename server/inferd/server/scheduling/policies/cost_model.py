"""The cost of a batch by its size, learned from the batches that ran: seconds = per_row · rows + fixed.

Sizes are grouped in classes that double in width; each class keeps smoothed rows and seconds. So a size that has not
run for long keeps its measurement, and the fitted line has distant points even where nearly all batches have one size.
Learning costs a few comparisons for each batch, and nothing for each request.
"""

from __future__ import annotations

_OFTEN = 0.1  # weight of a batch that was slower than the class, once the class is known
_SOONER = 0.2  # weight of a faster batch: larger, because what slows batches down is mostly outside the model
_TRUSTED = 3  # batches after which the measurement of a class is used instead of the line
_JUMP = 2.0  # one batch counts as at most so many times the expected seconds, which limits outliers
_FULL = 16  # batches after which the weight of a class stops growing
UNKNOWN = float("inf")
_WORTH = 1.05  # a larger batch must make rows cheaper by more than this factor


class CostCurve:
    """The cost curve of one bucket. The thread that ran a batch writes it, any thread reads it, without a lock: a lost
    update does no harm.

    line   (per_row, fixed) in seconds; None until a batch has run. One size alone does not determine both: then each
           gets half of the seconds.
    """

    __slots__ = ("_best", "_classes", "_since", "line")

    def __init__(self) -> None:
        self._classes: dict[int, _Class] = {}
        self._since = 0
        self._best = (0, 0)
        self.line: tuple[float, float] | None = None

    def ran(self, rows: int, seconds: float) -> None:
        """Learns that a batch of `rows` (at least 1) took `seconds`."""
        known = self._classes.get(rows.bit_length())
        if known is None:
            known = self._classes[rows.bit_length()] = _Class(rows, seconds)
        else:
            known.ran(rows, seconds)
        self._since += 1
        if self._since >= 8 or known.count <= _TRUSTED:
            self._since = 0
            self._fit()

    def seconds(self, rows: int) -> float:
        """The expected seconds of a batch of `rows`; 0 before the first batch."""
        line = self.line
        if line is None:
            return 0.0
        known = self._classes.get(rows.bit_length())
        if known is not None and known.count >= _TRUSTED:
            return max(0.5 * known.seconds, known.seconds + line[0] * (rows - known.rows))
        return line[0] * rows + line[1]

    def usual(self, rows: int) -> float:
        """The recent seconds of batches with about `rows` rows; UNKNOWN while too few have run."""
        known = self._classes.get(rows.bit_length())
        return known.seconds if known is not None and known.count >= _FULL else UNKNOWN

    def enough(self, limit: int) -> int:
        """The smallest batch whose cost per row is within 5 % of the cheapest batch of up to `limit` rows; `limit`
        while too little is known."""
        cached_limit, rows = self._best
        if cached_limit != limit:
            rows = self._search(limit)
            self._best = (limit, rows)
        return rows

    def _search(self, limit: int) -> int:
        if sum(known.count >= _TRUSTED for known in self._classes.values()) < 2:
            return limit
        sizes = [size for k in range(limit.bit_length()) if (size := 1 << k) < limit] + [limit]
        per_row = [self.seconds(size) / size for size in sizes]
        limit_per_row = _WORTH * min(per_row)
        return next(size for size, cost in zip(sizes, per_row, strict=True) if cost <= limit_per_row)

    def _fit(self) -> None:
        """Fits the least-squares line through the classes, with neither coefficient below zero."""
        weight = x = y = xx = xy = 0.0
        for known in tuple(self._classes.values()):
            w = min(known.count, _FULL)
            weight += w
            x += w * known.rows
            y += w * known.seconds
            xx += w * known.rows * known.rows
            xy += w * known.rows * known.seconds
        spread = weight * xx - x * x
        if len(self._classes) < 2 or spread <= 1e-9 * xx * weight:
            per_row = 0.5 * y / x
        else:
            per_row = min(max(0.0, (weight * xy - x * y) / spread), y / x)
        self.line = (per_row, max(0.0, (y - per_row * x) / weight))
        self._best = (0, 0)


class _Class:
    """Batches of one class of sizes: smoothed rows and seconds, and how many have run."""

    __slots__ = ("count", "rows", "seconds")

    def __init__(self, rows: int, seconds: float) -> None:
        self.rows = float(rows)
        self.seconds = seconds
        self.count = 1

    def ran(self, rows: int, seconds: float) -> None:
        self.count += 1
        expected = self.seconds * rows / self.rows
        seconds = min(seconds, _JUMP * max(expected, self.seconds))
        share = max(_SOONER if seconds < self.seconds else _OFTEN, 1 / self.count)
        self.rows += share * (rows - self.rows)
        self.seconds += share * (seconds - self.seconds)
