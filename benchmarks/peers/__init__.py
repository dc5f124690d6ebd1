"""Compares inferd with other servers ("peers"), in one run on one machine.

`python -m benchmarks peers [--quick] [--triton START] [--prototype PATH] [--only NAME,...] [--docs]`

All servers get the same ONNX models, the same message of the Open Inference Protocol and the same load generator. The
models run on one thread; servers that batch use batches of at most 64 rows. If a peer cannot be installed or started on
this machine, the table has the reason. `benchmarks.h2load` describes how successful requests are counted.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.charts import Bars
from benchmarks.h2load import IN_FLIGHT, LoadError, available
from benchmarks.options import Options
from benchmarks.peers.catalogue import ECHO, FIRST, catalogue
from benchmarks.peers.compare import Loaded, Plan, Runner, Seen, paired, rounds
from benchmarks.peers.environments import NotInstalled
from benchmarks.peers.in_process import NAME as ALONE
from benchmarks.peers.in_process import InProcess, in_process
from benchmarks.peers.peer import NotStarted, Peer, Running, answered
from benchmarks.peers.points import Work, prepare
from benchmarks.processes import forget_peak, peak_mb
from benchmarks.report import Table

FULL, QUICK = Plan(7, 0.8, 100), Plan(3, 0.2, 9)
QUICK_WORKS, QUICK_IN_FLIGHT = ("tiny", "image"), (1, 32)
COLUMNS = (
    "in flight",
    "server",
    "requests/s",
    "inferd is × as fast",
    "CPU µs/request",
    "p50 ms",
    "p99 ms",
    "peak RSS MB",
)


def measure(options: Options) -> Iterator[Table]:
    """Yields a table for each model as soon as it is complete. All servers run during the whole measurement; the rounds
    alternate between them. Raises LoadError if h2load is not installed.
    """
    if not available():
        raise LoadError("h2load is not installed; it comes with Debian's nghttp2-client")
    plan = QUICK if options.quick else FULL
    in_flights = QUICK_IN_FLIGHT if options.quick else tuple(IN_FLIGHT)
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder, ExitStack() as stack:
        models, logs = Path(folder) / "models", Path(folder) / "logs"
        logs.mkdir()
        works = [work for work in prepare(models) if not options.quick or work.model in QUICK_WORKS]
        running, missing = _started(stack, options, models, logs, works)
        alone = stack.enter_context(in_process(models, logs))
        for work in works:
            runners: dict[str, Runner] = {
                peer.name: Loaded(work.target(peer, process, Path(folder)), process.pid) for peer, process in running
            }
            runners[ALONE] = InProcess(alone, work.model)
            print(f"{work.title} ...", flush=True)
            yield _table(work, runners, missing, plan, in_flights)


def _started(
    stack: ExitStack, options: Options, models: Path, logs: Path, works: list[Work]
) -> tuple[list[tuple[Peer, Running]], dict[str, str]]:
    """The peers that answer the requests of all works rightly, and the reasons of the others by name."""
    running: list[tuple[Peer, Running]] = []
    missing: dict[str, str] = {}
    for peer in catalogue(options.prototype, options.triton):
        if options.only and peer.name != FIRST and not any(word in peer.name.lower() for word in options.only):
            continue
        try:
            with ExitStack() as trial:
                process = trial.enter_context(peer.start(models, logs))
                for work in works:
                    answered(partial(work.ask, peer, process))
                stack.enter_context(trial.pop_all())
        except (NotInstalled, NotStarted) as error:
            missing[peer.name] = str(error)
        else:
            running.append((peer, process))
    return running, missing


def _table(
    work: Work, runners: dict[str, Runner], missing: dict[str, str], plan: Plan, in_flights: Sequence[int]
) -> Table:
    table = Table(
        f"Peers: {work.title}",
        COLUMNS,
        how=f"Up to {plan.turns} alternating rounds of about {plan.seconds} s; medians; ratios are medians of paired "
        "rounds. Load by h2load on the same cores; every answer's bytes counted. One model thread; batches up to 64.",
    )
    bars = Bars(f"Requests per second: {work.title}", [f"{n} request{'s' * (n > 1)} in flight" for n in in_flights])
    raw: dict[str, dict[str, Any]] = {}
    heights: dict[str, list[float | None]] = {name: [] for name in runners}
    for runner in runners.values():
        forget_peak(runner.pid)
    for in_flight in in_flights:
        seen = rounds(runners, in_flight, plan)
        raw[str(in_flight)] = {name: vars(values) for name, values in seen.items()}
        for name, values in seen.items():
            table.rows.append(_row(in_flight, name, values, seen[FIRST], runners[name]))
            heights[name].append(statistics.median(values.rates) if values.rates else None)
    table.rows += [["", name, f"not measured: {why}", "", "", "", "", ""] for name, why in missing.items()]
    for name in drawn(heights):
        bars.add(name, heights[name])
    table.rounds = raw
    table.plots = {work.model: bars.svg()}
    return table


def drawn(heights: Mapping[str, Sequence[float | None]]) -> list[str]:
    """The names that the plot shows: all servers. The echo and the models without a server do less work; they are shown
    only if their bars are at most twice as long as those of the servers."""
    others = [name for name in heights if name not in (ALONE, ECHO)]
    most = max((value for name in others for value in heights[name] if value is not None), default=0.0)
    return [name for name in heights if name in others or max((v or 0.0) for v in heights[name]) <= 2 * most]


def _row(in_flight: int, name: str, seen: Seen, first: Seen, runner: Runner) -> list[Any]:
    label = f"{name}, batches of {runner.batch(in_flight)}" if isinstance(runner, InProcess) else name
    if not seen.rates:
        return [in_flight, label, f"failed: {seen.failed}", "", "", "", "", peak_mb(runner.pid)]
    ratio: float | str = paired(first.rates, seen.rates) if first.rates else ""
    medians = [statistics.median(values) for values in (seen.cpu, seen.p50, seen.p99)]
    note = f" ({seen.failed})" if seen.failed else ""
    return [in_flight, label + note, statistics.median(seen.rates), ratio, *medians, peak_mb(runner.pid)]
