"""The memory of the server, and how it develops: `python -m benchmarks memory [--requests N] [--quick]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.server import Served

from benchmarks.h2load import IN_FLIGHT, LoadError, available, load
from benchmarks.options import Options
from benchmarks.peers.catalogue import FIRST, Peer
from benchmarks.peers.peer import Running
from benchmarks.peers.points import prepare
from benchmarks.processes import resident_mb
from benchmarks.report import Table

QUICK_REQUESTS = 200_000
CHUNKS = 50
SHOWN = (1, 5, 10, 25, 50, 75, 100)
BARE = """
import sys, grpc, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
model.run(None, {"x": numpy.ones((1, 64), numpy.float32)})
print("done", flush=True)
sys.stdin.read()
"""


def measure(options: Options) -> list[Table]:
    """Measures the memory after the start, then over many requests. Raises LoadError if a request fails."""
    if not available():
        raise LoadError("h2load is not installed; it comes with Debian's nghttp2-client")
    requests = min(options.requests, QUICK_REQUESTS) if options.quick else options.requests
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder:
        models = Path(folder) / "models"
        work = next(work for work in prepare(models) if work.model == "tiny")
        for name in ("medium", "compute", "image"):
            (models / name).rename(Path(folder) / name)
        bare = _bare(models / "tiny" / "1" / "model.onnx")
        with Served(models) as server:
            running = Running(server.address, server.pid, server.log)
            target = work.target(Peer(FIRST, ""), running, Path(folder))
            base = resident_mb(server.pid)
            course, rate = [(0, base)], 0.0
            began = time.monotonic()
            chunk = max(*IN_FLIGHT, requests // CHUNKS)
            for number in range(1, CHUNKS + 1):
                load(target, 32, chunk)
                course.append((number * chunk, resident_mb(server.pid)))
            rate = CHUNKS * chunk / (time.monotonic() - began)
    return [_base(bare, base), _course(course, rate)]


def _bare(model: Path) -> float:
    """Resident memory in MB of a process that has only imported the libraries and loaded the model."""
    process = subprocess.Popen(
        [sys.executable, "-c", BARE, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        found = resident_mb(process.pid)
        process.kill()
    return found


def _base(bare: float, base: float) -> Table:
    table = Table("Memory: base", ("process", "resident MB"), how="One tiny model, one request made, Linux's VmRSS.")
    table.rows = [
        ["Python with grpc, numpy, onnxruntime and the model", _mb(bare)],
        ["inferd, default configuration, the same model", _mb(base)],
        ["what inferd adds", _mb(base - bare)],
    ]
    return table


def _mb(value: float) -> str:
    return f"{value:.1f}"


def _course(course: list[tuple[int, float]], rate: float) -> Table:
    table = Table(
        "Memory: over many requests",
        ("requests", "resident MB", "since the first tenth, MB"),
        how=f"h2load, 32 in flight, {rate:,.0f} requests/s, every answer's bytes counted.",
    )
    settled = course[CHUNKS // 10][1]
    for percent in SHOWN:
        made, resident = course[max(1, percent * CHUNKS // 100)]
        table.rows.append([f"{made:,}", _mb(resident), _mb(resident - settled) if percent >= 10 else ""])
    table.rounds = {"course": course}
    return table
