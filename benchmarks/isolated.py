"""The cost of `isolation: process`: the same model in the server's process and in a worker process."""

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
ISOLATIONS = ("none", "process")


def measure() -> list[Table]:
    """One server serves both models; the rounds alternate between them. Processor time is that of the server and of its
    workers together."""
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
        for isolation in ISOLATIONS:
            for size, (width, layers) in WIDTHS.items():
                model = root / _name(isolation, size)
                write_mlp(model / "1" / "model.onnx", width, layers)
                (model / "model.yaml").write_text(f"isolation: {isolation}\ninstances: {{threads: 1}}\n")
        with Served(root) as server:
            for size, (width, _) in WIDTHS.items():
                bodies = {
                    isolation: message(_name(isolation, size), np.ones((1, width), np.float32))
                    for isolation in ISOLATIONS
                }
                for in_flight in IN_FLIGHT:
                    _compare(table, server, size, in_flight, bodies)
    return table


def _compare(table: Table, server: Served, size: str, in_flight: int, bodies: dict[str, bytes]) -> None:
    rates: dict[str, list[float]] = {isolation: [] for isolation in ISOLATIONS}
    latencies: dict[str, list[float]] = {isolation: [] for isolation in ISOLATIONS}
    cpu: dict[str, list[float]] = {isolation: [] for isolation in ISOLATIONS}
    processes = [server.pid, *_workers(server.pid)]
    for number in range(ROUNDS):
        for isolation in ISOLATIONS if number % 2 else ISOLATIONS[::-1]:
            before = sum(map(cpu_seconds, processes))
            load = closed_loop(server.address, bodies[isolation], in_flight, SECONDS)
            assert not load.failed, f"{load.failed} requests failed"
            rates[isolation].append(load.rate)
            latencies[isolation].append(load.p50)
            cpu[isolation].append(1e6 * (sum(map(cpu_seconds, processes)) - before) / (load.rate * SECONDS))
    ratio = statistics.median(b / a for a, b in zip(rates["none"], rates["process"], strict=True))
    for isolation in ISOLATIONS:
        row = [statistics.median(values[isolation]) for values in (rates, latencies, cpu)]
        table.rows.append([size, in_flight, isolation, *row, 1.0 if isolation == "none" else ratio])


def _starting() -> Table:
    table = Table(
        "What a worker process takes",
        ("isolation", "load of a tiny ONNX model, s", "memory of the server, MiB", "of its worker, MiB"),
        how="one start each; resident memory after a hundred requests.",
    )
    for isolation in ISOLATIONS:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "models" / "tiny"
            write_mlp(model / "1" / "model.onnx", *SIZES["tiny"])
            (model / "model.yaml").write_text(f"isolation: {isolation}\ninstances: {{threads: 1}}\n")
            with Served(model.parent) as server:
                from inferd.client import Client

                with Client(server.address) as client:
                    for _ in range(100):
                        client.predict("tiny", {"x": np.ones((1, SIZES["tiny"][0]), np.float32)})
                    seconds = client.status("tiny").versions[0].load_seconds
                workers = sum(map(_resident, _workers(server.pid)))
                table.rows.append([isolation, seconds, server.memory() / 2**20, workers / 2**20 if workers else "-"])
    return table


def _name(isolation: str, size: str) -> str:
    return f"{isolation}_{size.replace(' ', '').lower()}"


def _workers(pid: int) -> list[int]:
    """The processes that a server has started, from any of its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
