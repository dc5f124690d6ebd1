"""New versions: the time from their drop to their first answer, and the memory over fifty reloads."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from support.marked import BACKENDS, prepare_model, publish
from support.server import Served
from support.waiting import eventually

from benchmarks.report import Table
from inferd.client import Client

DROPS, RELOADS = 5, 50
SETS = ("repository.poll=1s", "repository.settle=500ms")


def drop(client: Client, backend: str, model: Path, version: int) -> float:
    """Publishes a version and waits for its first answer. Returns the seconds since the renaming."""
    publish(backend, model, version, marker=version)
    begin = time.perf_counter()
    x = np.zeros((1, 4), np.float32)
    eventually(lambda: client.predict(model.name, {"x": x}).version == version, f"version {version}")
    return time.perf_counter() - begin


def measure() -> tuple[Table, Table]:
    """Measures the times and the memory, with one server for each framework."""
    live = Table(
        "From drop to first answer",
        ("backend", "median s", "fastest s", "slowest s"),
        how=f"{DROPS} versions each, published by rename; settle time 0.5 s of it, file events wake the scan.",
    )
    memory = Table(
        "Memory over reloads",
        ("backend", "after 5 reloads, MiB", f"after {RELOADS}, MiB", "growth, MiB", "served alone, MiB"),
        how="Resident memory of the server; each reload is a new version loaded beside the old one, which then goes.",
    )
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            model = prepare_model(backend, Path(folder) / "models", "marked")
            publish(backend, model, 1, marker=1)
            with Served(Path(folder) / "models", sets=SETS, limit=120) as server, Client(server.address) as client:
                alone = server.memory()
                times = [drop(client, backend, model, 2 + i) for i in range(DROPS)]
                early = server.memory()
                for version in range(2 + DROPS, 2 + RELOADS):
                    drop(client, backend, model, version)
                    shutil.rmtree(model / str(version - 1), ignore_errors=True)
                late = server.memory()
            live.rows.append([backend, statistics.median(times), min(times), max(times)])
            mib = [value / 2**20 for value in (early, late, late - early, alone)]
            memory.rows.append([backend, *mib])
    return live, memory
