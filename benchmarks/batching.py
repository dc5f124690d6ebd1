"""The gain from batching: the same model with and without batching, with 1 to 128 requests in flight."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
from support.server import Served

from benchmarks.load import closed_loop, message
from benchmarks.models import SIZES, repository
from benchmarks.report import Table

ROUNDS, SECONDS = 3, 2.0
IN_FLIGHT = (1, 8, 32, 128)


def measure() -> Table:
    """Both servers run during the whole measurement; the rounds alternate between them."""
    table = Table(
        "Batching gain",
        ("model", "in flight", "unbatched, requests/s", "batched, requests/s", "gain", "batched p99 ms"),
        how=f"{ROUNDS} alternating rounds of {SECONDS:.0f} s, medians; no delay; one instance, one thread.",
    )
    with tempfile.TemporaryDirectory() as folder:
        off = repository(Path(folder) / "off", "instances: {threads: 1}\nbatching: {mode: 'off'}\n")
        on = repository(Path(folder) / "on", "instances: {threads: 1}\n")
        with Served(off) as plain, Served(on) as batched:
            for name, (width, _) in SIZES.items():
                body = message(name, np.ones((1, width), np.float32))
                for in_flight in IN_FLIGHT:
                    without, with_, p99 = [], [], []
                    for _ in range(ROUNDS):
                        without.append(closed_loop(plain.address, body, in_flight, SECONDS).rate)
                        load = closed_loop(batched.address, body, in_flight, SECONDS)
                        with_.append(load.rate)
                        p99.append(load.p99)
                    slow, fast = statistics.median(without), statistics.median(with_)
                    table.rows.append([name, in_flight, slow, fast, fast / slow, statistics.median(p99)])
    return table
