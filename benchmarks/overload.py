"""Overload: three times more requests than the model can answer.

Measures how many are still answered in time, what a refusal costs, and how fast the server recovers.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import grpc
import numpy as np
from support.server import Served
from support.waiting import eventually

from benchmarks.compute_bound import write_convolutions
from benchmarks.load import PREDICT, closed_loop, cpu_seconds, message
from benchmarks.models import SIZES, write_mlp
from benchmarks.open_loop import Arrivals, open_loop
from benchmarks.report import Table

ROUNDS, SECONDS = 5, 8.0
TIMES = 3.0  # requests sent, as a multiple of what the model can answer
DEADLINE = 1.0  # seconds
SMALL = (1, 8, 8)  # shape of the input: small, so that the load generator is not the bottleneck
MUCH = {"shape": SMALL, "channels": 256, "layers": 12}  # about 8 ms for each row
AT_ONCE = 64  # requests in flight when the maximum is measured


def measure() -> Sequence[Table]:
    """Overloads a compute-bound model, then a model that computes next to nothing, then measures a refusal's cost."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "models"
        write_convolutions(root / "slow" / "1" / "model.onnx", **MUCH)
        (root / "slow" / "model.yaml").write_text("instances: {threads: 1}\n")
        write_convolutions(root / "light" / "1" / "model.onnx", shape=SMALL, channels=1, layers=1)
        write_convolutions(root / "full" / "1" / "model.onnx", **MUCH)
        (root / "full" / "model.yaml").write_text("instances: {threads: 1}\nqueue: {requests: 1}\n")
        write_mlp(root / "tiny" / "1" / "model.onnx", *SIZES["tiny"])
        (root / "tiny" / "model.yaml").write_text("instances: {threads: 1}\n")
        with Served(root) as server:
            tables = [_flood(server)]
            if shutil.which("h2load"):
                tables += [_front_end(server, Path(folder)), _refusal(server, Path(folder))]
    return tables


def _flood(server: Served) -> Table:
    table = Table(
        f"Overload: {TIMES:g} times what a compute-bound model can do, deadline {DEADLINE:g} s",
        ("", "median", "lowest–highest"),
        how=f"{ROUNDS} rounds of {SECONDS:.0f} s, open loop, exponential gaps, each after a measurement of the maximum "
        f"(closed loop, {AT_ONCE} in flight); one instance, one thread; the generator shares the cores. Goodput counts "
        "answers before the deadline. Recovery: from the last arrival of the flood to the first single request that "
        "takes at most twice as long as before it.",
    )
    body = message("slow", np.ones((1, *SMALL), np.float32))
    light = message("light", np.ones((1, *SMALL), np.float32))
    rows: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        alone = statistics.median(_single(server, body) for _ in range(9))
        most = closed_loop(server.address, body, AT_ONCE, SECONDS / 2).rate
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            answering = other.submit(closed_loop, server.address, body, AT_ONCE, SECONDS / 2)
            open_loop(server.address, light, TIMES * most, SECONDS / 2 + 1.0, DEADLINE, channels=4)
            beside = answering.result().rate
        before = server.memory()
        arrivals = open_loop(server.address, body, TIMES * most, SECONDS, DEADLINE, channels=4)
        ended = time.perf_counter()
        while _single(server, body) > 2 * alone:
            pass
        recovered = time.perf_counter() - ended
        for name, value in {
            "maximum, requests/s": most,
            "sent, requests/s": arrivals.sent / SECONDS,
            "goodput, requests/s": arrivals.goodput,
            "goodput / maximum": arrivals.goodput / most,
            "maximum beside as many requests to a light model": beside,
            "goodput / that": arrivals.goodput / beside,
            "refused, share": arrivals.codes["RESOURCE_EXHAUSTED"] / arrivals.sent,
            "passed their deadline, share": arrivals.codes["DEADLINE_EXCEEDED"] / arrivals.sent,
            "other failures": float(_others(arrivals)),
            "refused after, p50 ms": arrivals.percentile("RESOURCE_EXHAUSTED", 50),
            "refused after, p99 ms": arrivals.percentile("RESOURCE_EXHAUSTED", 99),
            "answered after, p50 ms": arrivals.percentile("OK", 50),
            "answered after, p99 ms": arrivals.percentile("OK", 99),
            "recovery, ms": 1000 * recovered,
            "memory grown, MiB": (server.memory() - before) / 2**20,
            "generator behind its times, ms": arrivals.late,
        }.items():
            rows.setdefault(name, []).append(value)
    table.rows += [[name, statistics.median(seen), f"{min(seen):.3g}–{max(seen):.3g}"] for name, seen in rows.items()]
    return table


def _others(arrivals: Arrivals) -> int:
    return (
        arrivals.sent
        - arrivals.codes["OK"]
        - arrivals.codes["RESOURCE_EXHAUSTED"]
        - arrivals.codes["DEADLINE_EXCEEDED"]
    )


def _single(server: Served, body: bytes) -> float:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(PREDICT)
        grpc.channel_ready_future(channel).result(30)
        began = time.perf_counter()
        try:
            call(body, timeout=5)
        except grpc.RpcError:
            return 5.0
        return time.perf_counter() - began


def _front_end(server: Served, folder: Path) -> Table:
    """Overload of the front end, with a tiny model. The front end must read the requests that it refuses, which takes
    some of its capacity."""
    table = Table(
        f"Overload of the front end: {TIMES:g} times what it can do with a tiny model",
        ("", "median", "lowest–highest"),
        how=f"{ROUNDS} alternating rounds of {SECONDS / 2:.0f} s, h2load; the maximum with 256 in flight, the "
        "floods with up to 4,096, without deadlines and with 100 ms, which is less than so many wait; answers are "
        "counted by the server.",
    )
    body = _file(folder, message("tiny", np.ones((1, SIZES["tiny"][0]), np.float32)))
    rows: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        answered, took = _h2load(server, body, 8, 32, SECONDS / 2)
        most = answered / took
        rows.setdefault("maximum, requests/s", []).append(most)
        for case, flags in (("without deadlines", ()), ("deadline 100 ms", ("-H", "grpc-timeout: 100m"))):
            before = server.memory()
            answered, took = _h2load(server, body, 16, 256, SECONDS / 2, *flags, f"--rps={TIMES * most / 16:.0f}")
            for name, value in {
                "goodput, requests/s": answered / took,
                "goodput / maximum": answered / took / most,
                "memory grown, MiB": (server.memory() - before) / 2**20,
            }.items():
                rows.setdefault(f"{case}: {name}", []).append(value)
    table.rows += [[name, statistics.median(seen), f"{min(seen):.3g}–{max(seen):.3g}"] for name, seen in rows.items()]
    return table


def _refusal(server: Served, folder: Path) -> Table:
    table = Table(
        "What a refusal costs",
        ("", "server CPU µs, median", "lowest–highest"),
        how=f"{ROUNDS} alternating rounds, h2load, 32 in flight, or 1 where the table says 'alone'; the processor "
        "time of all threads but the one that "
        "computes. Refused: a queue for one request. The model of that queue computes in both kinds of rounds.",
    )
    tiny = _file(folder, message("tiny", np.ones((1, SIZES["tiny"][0]), np.float32)))
    full = folder / "full"
    data = message("full", np.ones((1, *SMALL), np.float32))
    full.write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
    cases = {"tiny answer": (tiny, 4, 8), "tiny answer, alone": (tiny, 1, 1), "refusal": (full, 4, 8)}
    costs: dict[str, list[float]] = {name: [] for name in cases}
    _settle(server, data)
    before = _threads(server.pid)
    closed_loop(server.address, data, 1, 2.0)
    spent = {thread: after - before.get(thread, 0.0) for thread, after in _threads(server.pid).items()}
    computes = max(spent, key=spent.__getitem__)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        for _ in range(ROUNDS):
            for name, (body, connections, streams) in cases.items():
                busy = other.submit(closed_loop, server.address, data, 2, SECONDS / 2 + 0.5)
                began, model = cpu_seconds(server.pid), _threads(server.pid)[computes]
                count, _ = _h2load(server, body, connections, streams, SECONDS / 2, codes=("OK", "RESOURCE_EXHAUSTED"))
                own = cpu_seconds(server.pid) - began - (_threads(server.pid)[computes] - model)
                costs[name].append(1e6 * own / count)
                busy.result()
    for name, seen in costs.items():
        table.rows.append([name, statistics.median(seen), f"{min(seen):.3g}–{max(seen):.3g}"])
    for name in ("tiny answer", "tiny answer, alone"):
        ratios = [r / t for r, t in zip(costs["refusal"], costs[name], strict=True)]
        table.rows.append([f"refusal / {name}", statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"])
    return table


def _settle(server: Served, data: bytes) -> None:
    """Waits until a call is answered: after an overload, gRPC's core refuses some calls itself while too many wait."""

    def answered() -> bool:
        with grpc.insecure_channel(server.address) as channel:
            try:
                channel.unary_unary(PREDICT)(data, timeout=30)
            except grpc.RpcError:
                return False
        return True

    eventually(answered, "a call is answered after the floods")


def _file(folder: Path, body: bytes) -> Path:
    file = folder / "body"
    file.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    return file


def _h2load(
    server: Served,
    body: Path,
    connections: int,
    streams: int,
    seconds: float,
    *flags: str,
    codes: Sequence[str] = ("OK",),
) -> tuple[int, float]:
    """Runs h2load. Returns the number of requests that ended with one of the codes, as counted by the server's metrics,
    and the duration in seconds."""
    shape = ["-c", str(connections), "-m", str(streams), "-t", "1", "-D", f"{seconds:.0f}", "-d", str(body)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    before, began = _counted(server.http, codes), time.perf_counter()
    subprocess.run(
        ["h2load", *shape, *headers, *flags, f"http://{server.address}{PREDICT}"], capture_output=True, check=True
    )
    return _counted(server.http, codes) - before, time.perf_counter() - began


def _counted(http: str, codes: Sequence[str]) -> int:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'^inferd_requests_total\{code="(\w+)".*\} (\S+)$', text, re.M)
    return sum(int(float(count)) for code, count in found if code in codes)


def _threads(pid: int) -> dict[str, float]:
    """Processor time in seconds, by thread."""
    seconds = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:  # the thread has just ended
            continue
        seconds[task.name] = (int(fields[11]) + int(fields[12])) / 100
    return seconds
