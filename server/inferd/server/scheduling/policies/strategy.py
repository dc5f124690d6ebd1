"""Chooses how the requests of one batch run: concatenated in one run, or one by one. Pure functions.

Concatenation copies every row. Where rows are large and runs are short, the copy costs more than one run saves.
"""

from __future__ import annotations

from inferd.server.scheduling.policies.cost_model import UNKNOWN, CostCurve

LARGE = 128 * 2**10  # bytes of a request below which requests are always concatenated
SHORT_RUN = 250e-6  # seconds
MANY = 2**62  # requests: more than a queue holds


def one_by_one(nbytes: int, rows: int, effort: CostCurve) -> bool:
    """Whether requests with `nbytes` bytes and `rows` rows each run one by one. `effort`: the cost of runs by rows."""
    return nbytes >= LARGE and seconds_alone(rows, effort) <= SHORT_RUN


def seconds_alone(rows: int, effort: CostCurve) -> float:
    """Expected seconds of a run of `rows` rows; infinity before any run."""
    usual = effort.usual(rows)
    if usual == UNKNOWN:  # only larger batches have run
        usual = effort.seconds(rows) or UNKNOWN
    return usual
