"""How the requests of one batch run: joined into one run, or one by one. Pure.

Joining copies every row. For large rows the copy costs more than what a run saves, where runs are short.
"""

from __future__ import annotations

from inferd.server.scheduling.policies.cost_model import UNKNOWN, CostCurve

LARGE = 128 * 2**10  # bytes of a request from which on joining is weighed
SHORT_RUN = 250e-6  # seconds
MANY = 2**62  # requests: more than a queue holds


def one_by_one(nbytes: int, rows: int, effort: CostCurve) -> bool:
    """Whether requests, each of that many bytes and rows, run one after the other and are not joined. `effort`: what
    runs cost by their rows."""
    return nbytes >= LARGE and seconds_alone(rows, effort) <= SHORT_RUN


def seconds_alone(rows: int, effort: CostCurve) -> float:
    """Seconds that a run of so many rows may be expected to take; infinity while nobody knows."""
    usual = effort.usual(rows)
    if usual == UNKNOWN:  # only larger batches have run
        usual = effort.seconds(rows) or UNKNOWN
    return usual
