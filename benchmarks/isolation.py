"""The effect of a slow model on a fast one: latencies of a tiny model, alone and beside a slow model under load."""

from __future__ import annotations

import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from support.server import Served

from benchmarks.load import closed_loop, message
from benchmarks.models import SIZES, repository, write_mlp
from benchmarks.report import Table

ROUNDS, SECONDS = 5, 3.0
SLOW_WIDTH, SLOW_LAYERS, SLOW_ROWS = 2048, 8, 32


def measure() -> Table:
    """Alternating rounds, medians. The slow model has one thread, and always one request in flight."""
    table = Table(
        "A slow model beside a tiny one, one request in flight each",
        ("", "tiny p50 ms", "tiny p99 ms", "slow p50 ms"),
        how=f"{ROUNDS} alternating rounds of {SECONDS:.0f} s, medians; the generators share the cores.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = repository(Path(folder) / "models", "instances: {threads: 1}\n", ("tiny",))
        write_mlp(root / "slow" / "1" / "model.onnx", SLOW_WIDTH, SLOW_LAYERS)
        (root / "slow" / "model.yaml").write_text("instances: {threads: 1}\n")
        tiny = message("tiny", np.ones((1, SIZES["tiny"][0]), np.float32))
        slow = message("slow", np.ones((SLOW_ROWS, SLOW_WIDTH), np.float32))
        alone, beside, slow_p50 = [], [], []
        # The two load generators are separate processes: in one process they would wait for the interpreter's lock.
        with Served(root) as server, ProcessPoolExecutor(1, get_context("spawn")) as other:
            other.submit(closed_loop, server.address, slow, 1, 0.1).result()
            for _ in range(ROUNDS):
                alone.append(closed_loop(server.address, tiny, 1, SECONDS))
                loading = other.submit(closed_loop, server.address, slow, 1, SECONDS + 0.5)
                beside.append(closed_loop(server.address, tiny, 1, SECONDS))
                slow_p50.append(loading.result().p50)
        for name, loads, of_slow in (("alone", alone, []), ("beside the slow one", beside, slow_p50)):
            table.rows.append(
                [
                    name,
                    statistics.median(load.p50 for load in loads),
                    statistics.median(load.p99 for load in loads),
                    statistics.median(of_slow) if of_slow else "",
                ]
            )
        ratios = [b.p99 / a.p99 for a, b in zip(alone, beside, strict=True)]
        table.rows.append(["p99, beside over alone", "", statistics.median(ratios), ""])
    return table
