"""How rounds alternate, with runners that record when they ran."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from benchmarks.h2load import LoadError, Round
from benchmarks.peers.compare import Plan, paired, rounds

FOREVER = 1e9


@dataclass
class Noted:
    """A runner with a rate of `rate`. Its round number `fails_at` fails."""

    name: str
    order: list[str]
    rate: float = 100.0
    fails_at: int | None = None
    pid: int = field(default_factory=os.getpid)
    ran: int = 0

    def calibrate(self, in_flight: int, seconds: float) -> tuple[int, Round]:
        return max(in_flight, int(self.rate * seconds)), Round(self.rate, in_flight, 1.0, 2.0)

    def run(self, in_flight: int, requests: int) -> Round:
        self.order.append(self.name)
        self.ran += 1
        if self.ran == self.fails_at:
            raise LoadError("broken")
        return Round(self.rate + self.ran, requests, 1.0, 2.0)


def test_rounds_alternate_and_each_turn_starts_with_another_server() -> None:
    order: list[str] = []
    seen = rounds({name: Noted(name, order) for name in "abc"}, 1, Plan(3, 1.0, FOREVER))
    assert order == list("abcbcacab")
    assert [len(values.rates) for values in seen.values()] == [3, 3, 3]


def test_a_failure_is_reported_and_the_others_go_on() -> None:
    order: list[str] = []
    seen = rounds({"a": Noted("a", order, fails_at=2), "b": Noted("b", order)}, 1, Plan(3, 1.0, FOREVER))
    assert seen["a"].failed == "broken"
    assert len(seen["a"].rates) == 1
    assert len(seen["b"].rates) == 3


def test_a_slow_server_is_measured_once() -> None:
    order: list[str] = []
    seen = rounds({"a": Noted("a", order), "slow": Noted("slow", order, rate=2.0)}, 32, Plan(3, 1.0, FOREVER))
    assert seen["slow"].rates == [2.0]
    assert order == ["a"] * 3


def test_after_the_limit_only_the_first_turn_is_run() -> None:
    order: list[str] = []
    rounds({"a": Noted("a", order), "b": Noted("b", order)}, 1, Plan(3, 1.0, 0.0))
    assert order == ["a", "b"]


def test_ratios_are_computed_pair_by_pair() -> None:
    assert paired([2.0, 40.0, 6.0], [1.0, 10.0, 3.0]) == 2.0
    assert paired([2.0, 4.0, 6.0], [2.0]) == pytest.approx(2.0)
