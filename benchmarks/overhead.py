"""The overhead of the server: a model behind the server and the same model in process, one request at a time."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from support.server import Served

from benchmarks.load import closed_loop, cpu_seconds, message
from benchmarks.models import SIZES, repository
from benchmarks.report import Table

ROUNDS, SECONDS = 5, 2.0


def in_process(path: Path, x: np.ndarray, seconds: float) -> float:
    """Runs per second of an ONNX Runtime session with one thread, like the server's instance."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": x})
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        session.run(None, {"x": x})
        count += 1
    return count / seconds


def measure() -> Table:
    """Alternating rounds, medians."""
    table = Table(
        "Server overhead, one request in flight",
        ("model", "in process, runs/s", "server, requests/s", "added µs", "server CPU µs/request", "ratio"),
        how=f"{ROUNDS} alternating rounds of {SECONDS:.0f} s, medians; one row of float32; one thread in the instance; "
        "the load generator (grpc.aio) shares the cores.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = repository(Path(folder) / "models", "instances: {threads: 1}\n")
        with Served(root) as server:
            for name, (width, _) in SIZES.items():
                x = np.ones((1, width), np.float32)
                body = message(name, x)
                bare, served, cpu = [], [], []
                for _ in range(ROUNDS):
                    bare.append(in_process(root / name / "1" / "model.onnx", x, SECONDS))
                    before = cpu_seconds(server.pid)
                    load = closed_loop(server.address, body, 1, SECONDS)
                    served.append(load.rate)
                    cpu.append(1e6 * (cpu_seconds(server.pid) - before) / (load.rate * SECONDS))
                fast, rate = statistics.median(bare), statistics.median(served)
                added = 1e6 * (1 / rate - 1 / fast)
                table.rows.append([name, fast, rate, added, statistics.median(cpu), rate / fast])
    return table
