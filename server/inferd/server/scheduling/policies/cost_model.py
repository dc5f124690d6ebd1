"""What a batch costs by its size, learned from the batches that ran: seconds = per_row · rows + fixed.

Sizes are remembered in classes, each twice as wide as the one before, with smoothed rows and seconds: so a size that
has not been seen for long keeps what was known of it, and the line has points far apart even where nearly all batches
are alike. Learning costs a few comparisons a batch, nothing a request.
"""

from __future__ import annotations

_OFTEN = 0.1  # weight of a slower batch than was expected, once a class is known
_SOONER = 0.2  # and of a quicker one: what slows a batch down is mostly not the model's own
_TRUSTED = 3  # batches after which a class speaks for itself
_JUMP = 2.0  # times the expected seconds that one batch counts at most: an outlier is not believed at once
_FULL = 16  # batches after which a class weighs no more
UNKNOWN = float("inf")
_WORTH = 1.05  # a larger batch pays only when its rows get cheaper by more than this


class CostCurve:
    """Of one bucket: requests of one shape. Written by whoever ran a batch, read by anyone; a lost update does no harm.

    line   (per_row, fixed) in seconds, None until a batch has run. From one size alone nobody can tell the two apart:
           then each counts half.
    """

    __slots__ = ("_best", "_classes", "_since", "line")

    def __init__(self) -> None:
        self._classes: dict[int, _Class] = {}
        self._since = 0
        self._best = (0, 0)
        self.line: tuple[float, float] | None = None

    def ran(self, rows: int, seconds: float) -> None:
        """A batch of `rows` (at least 1) took that long."""
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
        """What a batch of `rows` may be expected to take; 0 while nothing is known."""
        line = self.line
        if line is None:
            return 0.0
        known = self._classes.get(rows.bit_length())
        if known is not None and known.count >= _TRUSTED:
            return max(0.5 * known.seconds, known.seconds + line[0] * (rows - known.rows))
        return line[0] * rows + line[1]

    def usual(self, rows: int) -> float:
        """What batches of about so many rows have taken lately; infinity while too few have run."""
        known = self._classes.get(rows.bit_length())
        return known.seconds if known is not None and known.count >= _FULL else UNKNOWN

    def enough(self, limit: int) -> int:
        """The fewest rows that are about as cheap, row by row, as a batch of any size up to `limit`; `limit` itself
        while that is not known."""
        asked, answer = self._best
        if asked != limit:
            answer = self._search(limit)
            self._best = (limit, answer)
        return answer

    def _search(self, limit: int) -> int:
        if sum(known.count >= _TRUSTED for known in self._classes.values()) < 2:
            return limit
        sizes = [size for k in range(limit.bit_length()) if (size := 1 << k) < limit] + [limit]
        each = [self.seconds(size) / size for size in sizes]
        worth = _WORTH * min(each)
        return next(size for size, cost in zip(sizes, each, strict=True) if cost <= worth)

    def _fit(self) -> None:
        """The line of least squares through the classes, neither part of it below zero."""
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
    """Batches of about one size."""

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
