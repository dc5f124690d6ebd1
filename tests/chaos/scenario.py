"""Scenarios, and how they are run: the fault is caused again and again under verified load, and a result is made."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar

from chaos.callers import ALL, Caller, Target, beside
from chaos.load import Load
from chaos.stage import Setup, Stage
from chaos.tally import Tally

from inferd.client import InferdError, RequestError, RetryPolicy

NOBODY_FAILS: Mapping[str, frozenset[str]] = {}
ANY = "any"
UNAVAILABLE = frozenset({"UNAVAILABLE"})
PATIENT = RetryPolicy(attempts=60, max_backoff=1.0)


class Scenario(ABC):
    """One fault. `strike` causes it once and returns when it is over; `settle` checks the state at the end.

    fault    description of the fault
    promise  what callers can rely on during the fault
    model    the affected model. If it is not `m`, then `m` is called too, and no call of it may fail
    may_fail status codes that callers of the affected model may get, by kind of client (or ANY)
    shown    a test of the suite that shows the same; such scenarios are run only by `make chaos`
    retry    retries of the native client
    """

    name: ClassVar[str]
    fault: ClassVar[str]
    promise: ClassVar[str]
    model: ClassVar[str] = "m"
    shown: ClassVar[str] = ""
    setup: ClassVar[Setup] = Setup()
    may_fail: ClassVar[Mapping[str, frozenset[str]]] = NOBODY_FAILS
    retry: ClassVar[RetryPolicy] = RetryPolicy()

    def callers(self, stage: Stage) -> Sequence[Caller]:
        """The clients that call the affected model."""
        return ALL

    @abstractmethod
    def strike(self, stage: Stage) -> None:
        """Causes the fault once. Raises AssertionError if a promise is broken."""

    def settle(self, stage: Stage) -> None:  # noqa: B027 - most have nothing to add
        """Checks what must hold after the last strike, while the load still runs. Raises AssertionError."""


def checked_code(error: InferdError) -> str:
    """The status code of a provoked failure. Raises AssertionError if it came too late, or if its text is not fit for
    callers."""
    code = error.code.name if isinstance(error, RequestError) else type(error).__name__
    assert code != "DEADLINE_EXCEEDED", f"the caller hangs: {error}"
    assert "Traceback" not in str(error), error
    return code


@dataclass(frozen=True)
class Result:
    """The result of one scenario. Times in seconds.

    gap, gap_beside   longest time between two answers of the affected model, and of `m` beside it
    notes             counts made by the strikes
    faults            broken promises
    """

    name: str
    strikes: int
    seconds: float
    sent: int
    answered: int
    refused: Mapping[str, int]
    lost: int
    wrong: int
    gap: float
    gap_beside: float | None
    notes: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def play(scenario: Scenario, stage: Stage, answers: int = 300, seconds: float = 20.0) -> Result:
    """Runs a scenario: strikes at least once, then until there are so many answers or so many seconds have passed."""
    began = time.monotonic()
    stage.notes.clear()
    faults: list[str] = []
    strikes = 0
    stateful = False if scenario.retry is PATIENT else None
    target = Load(Target(stage.grpc, stage.http, scenario.model, scenario.retry, stateful), scenario.callers(stage))
    others = Load(Target(stage.grpc, stage.http, "m", RetryPolicy()), (beside,)) if scenario.model != "m" else None
    try:
        with ExitStack() as stack:
            stage.target = stack.enter_context(target)
            stage.beside = stack.enter_context(others) if others is not None else None
            stage.more(50)
            while not strikes or (target.tally.answered < answers and time.monotonic() - began < seconds):
                scenario.strike(stage)
                strikes += 1
                stage.more(min(100 * strikes, max(100, answers // 20)))
            scenario.settle(stage)
            stage.more(50)
            if not stage.alive():
                faults.append("the server ended")
    except Exception as error:  # a failed strike is part of the result; the next scenario is run all the same
        faults.append(f"{type(error).__name__}: {error}")
    finally:
        stage.target = stage.beside = None
    tallies = [load.tally for load in (target, others) if load is not None]
    faults += _broken(target.tally, scenario.may_fail)
    if others is not None:
        faults += [f"beside: {fault}" for fault in _broken(others.tally, NOBODY_FAILS)]
    refused: dict[str, int] = {}
    for tally in tallies:
        for (kind, code), count in sorted(tally.refused.items()):
            refused[f"{kind} {code}"] = refused.get(f"{kind} {code}", 0) + count
    return Result(
        name=scenario.name,
        strikes=strikes,
        seconds=time.monotonic() - began,
        sent=sum(tally.sent for tally in tallies),
        answered=sum(tally.answered for tally in tallies),
        refused=refused,
        lost=sum(tally.lost for tally in tallies),
        wrong=sum(tally.wrong for tally in tallies),
        gap=target.tally.gap,
        gap_beside=others.tally.gap if others is not None else None,
        notes=dict(stage.notes),
        faults=tuple(faults),
    )


def _broken(tally: Tally, may_fail: Mapping[str, frozenset[str]]) -> list[str]:
    """Descriptions of the promises that a tally breaks."""
    found = []
    if tally.lost or tally.wrong:
        found.append(f"{tally.lost} lost, {tally.wrong} wrong; {tally.examples}")
    for (kind, code), count in sorted(tally.refused.items()):
        if code not in may_fail.get(kind, may_fail.get(ANY, frozenset())):
            found.append(f"{count} calls of {kind} failed with {code}, which was not to be; {tally.examples}")
    return found
