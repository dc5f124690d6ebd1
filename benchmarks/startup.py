"""The cost of starting: import times, the time until ready, and the memory when ready, with and without a framework."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.marked import BACKENDS, prepare_model, publish
from support.server import Served

from benchmarks.report import Table

ROUNDS = 3
IMPORTS = ("numpy", "grpc", "inferd.client", "inferd.server.app", "onnxruntime", "torch", "tensorflow")


def import_seconds(module: str) -> float:
    """The seconds that a new interpreter needs to import a module, without the start of the interpreter."""

    def run(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - begin

    return statistics.median(run(f"import {module}") - run("pass") for _ in range(ROUNDS))


def measure() -> tuple[Table, Table]:
    """Measures import times, then servers."""
    imports = Table("Import time", ("module", "seconds"), how=f"Fresh interpreters, medians of {ROUNDS}.")
    imports.rows = [[module, import_seconds(module)] for module in IMPORTS]
    starts = Table(
        "Start-up",
        ("repository", "seconds until ready", "resident MiB when ready"),
        how=f"From the start of the process to its ready line, one tiny model, medians of {ROUNDS}.",
    )
    for backend in ("(empty)", *BACKENDS):
        seconds, mib = [], []
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "models"
            root.mkdir()
            if backend in BACKENDS:
                publish(backend, prepare_model(backend, root, "marked"), 1, marker=1)
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                with Served(root, limit=120) as server:
                    seconds.append(time.perf_counter() - begin)
                    mib.append(server.memory() / 2**20)
        starts.rows.append([backend, statistics.median(seconds), statistics.median(mib)])
    return imports, starts
