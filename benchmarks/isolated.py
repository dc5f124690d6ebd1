"""What `isolation: process` costs: the same model in the server's process and in a worker process of its own."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from support.server import Served

from benchmarks.load import closed_loop, cpu_seconds, message
from benchmarks.models import SIZES, write_mlp
from benchmarks.report import Table

ROUNDS = int(os.environ.get("ROUNDS", "7"))
SECONDS = 2.0
IN_FLIGHT = (1, 32)
WIDTHS = {"256 B": (SIZES["tiny"][0], 1), "600 KB": (150_000, 0)}
KINDS = ("none", "process")


def measure() -> list[Table]:
    """Both servers run all the time; rounds alternate between them. Processor time is that of the server and of its
    worker together."""
    return [_requests(), _starting()]


def _requests() -> Table:
    table = Table(
        "Isolation by process, the same model",
        ("input", "in flight", "isolation", "requests/s", "p50 ms", "CPU µs/request", "rate, of in process"),
        how=f"{ROUNDS} alternating rounds of {SECONDS:.0f} s, medians; ratios are medians of paired rounds; one thread "
        "in the instance; the load generator (grpc.aio) shares the cores.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "models"
        for kind in KINDS:
            for size, (width, layers) in WIDTHS.items():
                model = root / _name(kind, size)
                write_mlp(model / "1" / "model.onnx", width, layers)
                (model / "model.yaml").write_text(f"isolation: {kind}\ninstances: {{threads: 1}}\n")
        with Served(root) as server:
            for size, (width, _) in WIDTHS.items():
                bodies = {kind: message(_name(kind, size), np.ones((1, width), np.float32)) for kind in KINDS}
                for in_flight in IN_FLIGHT:
                    _compare(table, server, size, in_flight, bodies)
    return table


def _compare(table: Table, server: Served, size: str, in_flight: int, bodies: dict[str, bytes]) -> None:
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    halves: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    processes = [server.pid, *_workers(server.pid)]
    for number in range(ROUNDS):
        for kind in KINDS if number % 2 else KINDS[::-1]:
            before = sum(map(cpu_seconds, processes))
            load = closed_loop(server.address, bodies[kind], in_flight, SECONDS)
            assert not load.failed, f"{load.failed} requests failed"
            rates[kind].append(load.rate)
            halves[kind].append(load.p50)
            cpu[kind].append(1e6 * (sum(map(cpu_seconds, processes)) - before) / (load.rate * SECONDS))
    ratio = statistics.median(b / a for a, b in zip(rates["none"], rates["process"], strict=True))
    for kind in KINDS:
        row = [statistics.median(values[kind]) for values in (rates, halves, cpu)]
        table.rows.append([size, in_flight, kind, *row, 1.0 if kind == "none" else ratio])


def _starting() -> Table:
    table = Table(
        "What a worker process takes",
        ("isolation", "load of a tiny ONNX model, s", "memory of the server, MiB", "of its worker, MiB"),
        how="one start each; resident memory after a hundred requests.",
    )
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "models" / "tiny"
            write_mlp(model / "1" / "model.onnx", *SIZES["tiny"])
            (model / "model.yaml").write_text(f"isolation: {kind}\ninstances: {{threads: 1}}\n")
            with Served(model.parent) as server:
                from inferd.client import Client

                with Client(server.address) as client:
                    for _ in range(100):
                        client.predict("tiny", {"x": np.ones((1, SIZES["tiny"][0]), np.float32)})
                    seconds = client.status("tiny").versions[0].load_seconds
                workers = sum(map(_resident, _workers(server.pid)))
                table.rows.append([kind, seconds, server.memory() / 2**20, workers / 2**20 if workers else "-"])
    return table


def _name(kind: str, size: str) -> str:
    return f"{kind}_{size.replace(' ', '').lower()}"


def _workers(pid: int) -> list[int]:
    """The processes that a server has started, on whatever thread."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
