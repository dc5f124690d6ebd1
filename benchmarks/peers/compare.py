"""Measures in rounds: the servers take turns, so that disturbances of the machine affect all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.h2load import LoadError, Round, Target, load
from benchmarks.processes import cpu_seconds

SLOW = 5
"""If a round would take so many times as long as planned, it is not repeated; its only result is used."""


@dataclass
class Seen:
    """The results of one server at one number of requests in flight: a value for each round.

    rates      requests per second
    cpu        processor time in microseconds for each request
    p50, p99   latencies in milliseconds
    failed     the reason why there are no (further) rounds, "" for none
    """

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    failed: str = ""

    def note(self, result: Round, cpu: float) -> None:
        """Adds a round. `cpu`: its processor time in seconds."""
        self.rates.append(result.rate)
        self.cpu.append(1e6 * cpu / result.requests)
        self.p50.append(result.p50)
        self.p99.append(result.p99)


class Runner(Protocol):
    """Something that is measured: a server under load, or a model without one."""

    pid: int

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        """The number of requests that take so many seconds, and the round in which this was found out. Raises
        LoadError."""

    def run(self, in_flight: int, requests: int) -> Round:
        """Runs a round of so many requests. Raises LoadError."""


@dataclass(frozen=True)
class Loaded:
    """A server under load from h2load. `pid`: the process whose processor time is counted, with its descendants."""

    target: Target
    pid: int

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        least = max(in_flight, 16)
        first = load(self.target, in_flight, least)
        if least / first.rate < seconds / 4:  # the round was so short that connecting took a large part of it
            first = load(self.target, in_flight, max(least, int(first.rate * seconds / 2)))
        return max(least, int(first.rate * seconds)), first

    def run(self, in_flight: int, requests: int) -> Round:
        return load(self.target, in_flight, requests)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    turns     number of rounds of each server
    seconds   planned duration of a round
    limit     seconds after which no further turn is started
    """

    turns: int
    seconds: float
    limit: float


def rounds(runners: Mapping[str, Runner], in_flight: int, plan: Plan) -> dict[str, Seen]:
    """Measures all runners in alternating rounds, with one number of requests in flight. Returns the results by name.

    The rounds that find out the number of requests are not counted. Each turn starts with another runner.
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
    """The median of the ratios of the rounds, pair by pair. If the numbers of rounds differ, the ratio of the
    medians."""
    if len(first) == len(other):
        return statistics.median(a / b for a, b in zip(first, other, strict=True))
    return statistics.median(first) / statistics.median(other)
