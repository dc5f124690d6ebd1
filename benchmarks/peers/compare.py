"""The rounds: every peer in turn at one point, again and again, so that the machine's moods fall on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.h2load import LoadError, Round, Target, load
from benchmarks.processes import cpu_seconds

SLOW = 5
"""A round that would take so many times as long as planned is not repeated: its one figure stands."""


@dataclass
class Seen:
    """What one peer did at one point: a value a round. `failed` says why there is none (any more)."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    failed: str = ""

    def note(self, seen: Round, cpu: float) -> None:
        """Adds a round; `cpu` in seconds."""
        self.rates.append(seen.rate)
        self.cpu.append(1e6 * cpu / seen.requests)
        self.p50.append(seen.p50)
        self.p99.append(seen.p99)


class Runner(Protocol):
    """Something that is measured: a server under load, or a model without one."""

    pid: int

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        """How many requests fill the time, and the round that told. Raises LoadError."""

    def run(self, in_flight: int, requests: int) -> Round:
        """Makes that many requests. Raises LoadError."""


@dataclass(frozen=True)
class Loaded:
    """A server: where to send, and whose processor time to count."""

    target: Target
    pid: int

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        least = max(in_flight, 16)
        first = load(self.target, in_flight, least)
        if least / first.rate < seconds / 4:  # too short to believe: connecting took part of it
            first = load(self.target, in_flight, max(least, int(first.rate * seconds / 2)))
        return max(least, int(first.rate * seconds)), first

    def run(self, in_flight: int, requests: int) -> Round:
        return load(self.target, in_flight, requests)


@dataclass(frozen=True)
class Plan:
    """How much is measured: turns, the seconds of one round, and the seconds after which no turn begins any more."""

    turns: int
    seconds: float
    limit: float


def rounds(runners: Mapping[str, Runner], in_flight: int, plan: Plan) -> dict[str, Seen]:
    """Alternating rounds of every runner at one number of requests in flight.

    What is seen while finding out how many requests fill a round is thrown away. Each turn begins with another runner.
    """
    began_all = time.monotonic()
    seen = {name: Seen() for name in runners}
    requests: dict[str, int] = {}
    for name, runner in runners.items():
        began = cpu_seconds(runner.pid)
        try:
            requests[name], first = runner.calibrate(in_flight, plan.seconds)
        except LoadError as error:
            seen[name].failed = str(error)
            continue
        if requests[name] / first.rate > SLOW * plan.seconds:
            seen[name].note(first, cpu_seconds(runner.pid) - began)
    fast = [name for name in requests if not seen[name].rates]
    for turn in range(plan.turns if fast else 0):
        if turn and time.monotonic() - began_all > plan.limit:
            break
        start = turn % len(fast)
        for name in fast[start:] + fast[:start]:
            if seen[name].failed:
                continue
            began = cpu_seconds(runners[name].pid)
            try:
                done = runners[name].run(in_flight, requests[name])
            except LoadError as error:
                seen[name].failed = str(error)
            else:
                seen[name].note(done, cpu_seconds(runners[name].pid) - began)
    return seen


def paired(first: Sequence[float], other: Sequence[float]) -> float:
    """The median ratio of rounds that belong together; of the medians where there are not as many of both."""
    if len(first) == len(other):
        return statistics.median(a / b for a, b in zip(first, other, strict=True))
    return statistics.median(first) / statistics.median(other)
