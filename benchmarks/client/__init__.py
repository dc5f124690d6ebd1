"""The cost of a call for its caller: the Python client, tritonclient and bare gRPC, with the same server and model.

`python -m benchmarks client [--quick] [--docs]`. Each way to call runs in a separate process; the rounds alternate.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from support.server import Served

from benchmarks.client.own import measure_own
from benchmarks.h2load import LoadError, Round
from benchmarks.models import repository
from benchmarks.options import Options
from benchmarks.peers.compare import Plan, Seen, paired, rounds
from benchmarks.peers.peer import started
from benchmarks.report import Table

FULL, QUICK = Plan(9, 0.8, 150), Plan(3, 0.3, 20)
PROGRAM = Path(__file__).with_name("program.py")
WAYS = {
    1: {
        "inferd, predict": "inferd_sync",
        "tritonclient, infer": "triton_sync",
        "bare grpc, bytes": "bare_sync",
        "inferd, async predict": "inferd_aio",
        "tritonclient.aio, infer": "triton_aio",
        "bare grpc.aio, bytes": "bare_aio",
    },
    32: {
        "inferd, predict on 32 threads": "inferd_sync",
        "inferd, predict_many": "inferd_many",
        "inferd, stream": "inferd_stream",
        "inferd, stream shared by 32 threads": "inferd_shared_stream",
        "tritonclient, infer on 32 threads": "triton_sync",
        "tritonclient, async_infer": "triton_async",
        "bare grpc on 32 threads, bytes": "bare_sync",
        "inferd, async predict": "inferd_aio",
        "inferd, async predict_many": "inferd_aio_many",
        "inferd, async stream shared by 32 tasks": "inferd_aio_stream",
        "tritonclient.aio, infer": "triton_aio",
        "bare grpc.aio, bytes": "bare_aio",
    },
}
RIVALS = {
    "predict": "tritonclient, infer",
    "predict on 32 threads": "tritonclient, infer on 32 threads",
    "predict_many": "tritonclient, async_infer",
    "stream": "inferd, predict_many",
    "stream shared by 32 threads": "inferd, predict on 32 threads",
    "async predict": "tritonclient.aio, infer",
    "async predict_many": "tritonclient.aio, infer",
    "async stream shared by 32 tasks": "inferd, async predict",
}
"""By way to call inferd: the way that it is compared with, usually the same one of tritonclient. Streams are compared
with unary calls of inferd."""


class Caller:
    """A process that calls the server in one way, for the number of seconds that it is given. See `Runner`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process
        self._seconds = 0.0

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        self._seconds = seconds
        return in_flight, self.run(in_flight, 0)

    def run(self, in_flight: int, requests: int) -> Round:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(self._seconds, file=self._process.stdin, flush=True)
        words = self._process.stdout.readline().split()
        if len(words) != 3:
            raise LoadError("the process ended")
        calls, took = int(words[0]), float(words[1])
        each = 1000 * took * in_flight / calls
        return Round(calls / took, calls, each, each)


def measure(options: Options) -> list[Table]:
    """Tables for 1 and for 32 calls in flight, and one for the client alone."""
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder:
        models = repository(Path(folder) / "models", "instances: {threads: 1}\n", ("tiny",))
        with Served(models) as server:
            tables = [_table(in_flight, ways, server.address, Path(folder), plan) for in_flight, ways in WAYS.items()]
    return [*tables, measure_own()]


def _table(in_flight: int, ways: dict[str, str], address: str, folder: Path, plan: Plan) -> Table:
    table = Table(
        f"Clients: {in_flight} in flight",
        ("client", "calls/s", "client CPU µs/call", "× the rival's calls/s", "× the rival's CPU", "rival"),
        how=f"Up to {plan.turns} alternating rounds of about {plan.seconds} s; medians; ratios are medians of paired "
        "rounds; the tiny model, 64 floats in and 10 out; client and server share the cores. A bare channel sends "
        "bytes encoded once and looks at no answer.",
    )
    with ExitStack() as stack:
        callers = {}
        for name, way in ways.items():
            command = [sys.executable, str(PROGRAM), way, address, str(in_flight)]
            process, _ = stack.enter_context(started(command, dict(os.environ), folder / f"{way}.log", talks=True))
            callers[name] = Caller(process)
        seen = rounds(callers, in_flight, plan)
    for name, values in seen.items():
        rival = RIVALS.get(name.removeprefix("inferd, "), "") if name.startswith("inferd") else ""
        table.rows.append(_row(name, values, seen.get(rival), rival))
    table.rounds = {name: vars(values) for name, values in seen.items()}
    return table


def _row(name: str, seen: Seen, other: Seen | None, rival: str) -> list[object]:
    if not seen.rates:
        return [name, f"failed: {seen.failed}", "", "", "", ""]
    row: list[object] = [name, statistics.median(seen.rates), statistics.median(seen.cpu)]
    if other is None or not other.rates:
        return [*row, "", "", rival]
    return [*row, paired(seen.rates, other.rates), paired(seen.cpu, other.cpu), rival]
