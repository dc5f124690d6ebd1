"""When a version that workers have loaded may serve: when all of them have it. Pure; the supervisor's thread only.

all members have loaded it    every one of them serves it from now on
a member could not            nobody serves it: who has loaded it lets go and tries again later, as after a failure
a member says nothing         after `patience` the others serve it; the late one follows as soon as it can

A worker that is not a member yet (it starts beside others) is let in when a member serves the same content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Decide = Callable[[int, str, str], None]
"""Worker, key, refusal ("": it may serve)."""
Late = Callable[[str, list[int]], None]
"""The version that is no longer waited for, and the workers that have not loaded it."""


@dataclass(slots=True)
class _ActivationQuestion:
    subject: str
    waiting: dict[int, None] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    since: float | None = None  # when the first member had loaded it


class TwoPhaseActivation:
    """Workers are numbers that are never used twice. `key` stands for content, `subject` for the version that has it.

    `named` says what a worker is called in a reason.
    """

    def __init__(
        self, decide: Decide, late: Late, *, named: Callable[[int], str], patience: float, clock: Callable[[], float]
    ) -> None:
        self._decide = decide
        self._late = late
        self._named = named
        self._patience = patience
        self._clock = clock
        self._members: set[int] = set()
        self._open: dict[str, _ActivationQuestion] = {}
        self._serves: dict[str, dict[int, str]] = {}  # subject → worker → key

    def join(self, worker: int) -> None:
        """Its word counts from now on."""
        self._members.add(worker)
        self._settle_all()

    def leave(self, worker: int) -> None:
        """It is not asked any more, nor waited for."""
        self._members.discard(worker)
        for question in self._open.values():
            question.waiting.pop(worker, None)
            question.failed.pop(worker, None)
        for workers in self._serves.values():
            workers.pop(worker, None)
        self._settle_all()

    def loaded(self, worker: int, key: str, subject: str) -> None:
        """It has loaded this and waits."""
        question = self._question(worker, key, subject)
        question.waiting[worker] = None
        question.failed.pop(worker, None)
        if question.since is None and worker in self._members:
            question.since = self._clock()
        self._settle(key, question)

    def failed(self, worker: int, key: str, subject: str, reason: str) -> None:
        """It could not load this."""
        question = self._question(worker, key, subject)
        question.waiting.pop(worker, None)
        question.failed[worker] = reason
        self._settle(key, question)

    def withdrawn(self, worker: int, key: str) -> None:
        """It does not want this any more."""
        question = self._open.get(key)
        if question is not None:
            question.waiting.pop(worker, None)
            if not question.waiting:
                question.since = None
            self._drop_empty(key, question)

    def ended(self, worker: int, subject: str) -> None:
        """It does not serve this version any more, in whatever content."""
        workers = self._serves.get(subject)
        if workers is not None:
            workers.pop(worker, None)
            if not workers:
                del self._serves[subject]
        self._forget(worker, subject)

    @property
    def due(self) -> float | None:
        """When `tick` has something to do, on the clock."""
        times = [question.since for question in self._open.values() if question.since is not None]
        return min(times) + self._patience if times else None

    def tick(self) -> None:
        """Gives up waiting where it has lasted too long."""
        now = self._clock()
        for key, question in list(self._open.items()):
            if question.since is not None and now >= question.since + self._patience:
                self._late(question.subject, sorted(self._missing(key, question)))
                self._let_in(key, question)

    def _question(self, worker: int, key: str, subject: str) -> _ActivationQuestion:
        self._forget(worker, subject, but=key)
        return self._open.setdefault(key, _ActivationQuestion(subject))

    def _forget(self, worker: int, subject: str, but: str = "") -> None:
        """What it could not load of other content is no news any more."""
        for key, question in list(self._open.items()):
            if key != but and question.subject == subject and question.failed.pop(worker, None) is not None:
                self._drop_empty(key, question)

    def _missing(self, key: str, question: _ActivationQuestion) -> set[int]:
        serving = self._serves.get(question.subject, {})
        return {one for one in self._members if one not in question.waiting and serving.get(one) != key}

    def _settle_all(self) -> None:
        for key, question in list(self._open.items()):
            self._settle(key, question)

    def _settle(self, key: str, question: _ActivationQuestion) -> None:
        if not question.waiting:
            question.since = None
            self._drop_empty(key, question)
            return
        failed = [(one, reason) for one, reason in question.failed.items() if one in self._members]
        serving = self._serves.get(question.subject, {})
        if failed:
            worker, reason = failed[0]
            waiting, question.waiting, question.since = question.waiting, {}, None
            for one in waiting:
                self._decide(one, key, f"{self._named(worker)} could not load it: {reason}")
        elif not self._missing(key, question) and self._members:
            self._let_in(key, question)
        elif any(serving.get(one) == key for one in self._members):
            for one in [one for one in question.waiting if one not in self._members]:
                del question.waiting[one]
                self._serve(one, key, question.subject)

    def _let_in(self, key: str, question: _ActivationQuestion) -> None:
        del self._open[key]
        for one in question.waiting:
            self._serve(one, key, question.subject)

    def _serve(self, worker: int, key: str, subject: str) -> None:
        self._serves.setdefault(subject, {})[worker] = key
        self._decide(worker, key, "")

    def _drop_empty(self, key: str, question: _ActivationQuestion) -> None:
        if not question.waiting and not question.failed:
            self._open.pop(key, None)
