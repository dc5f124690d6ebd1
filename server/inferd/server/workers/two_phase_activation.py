"""Decides when a version may serve: when every worker has loaded it. No input or output of its own.

all members have loaded it     all of them serve it from now on
a member failed to load it     no worker serves it; those that have loaded it unload it and retry later, as after a
                               failed load
a member does not report       after `patience` seconds the others serve it; the late worker follows when it has
                               loaded it

A worker that starts beside others is not a member yet. It may serve a version as soon as a member serves the same
content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Decide = Callable[[int, str, str], None]
"""Called with worker, key, refusal. An empty refusal: the worker may serve the version."""
Late = Callable[[str, list[int]], None]
"""Called with a version that serves although some workers lack it, and these workers."""


@dataclass(slots=True)
class _ActivationQuestion:
    subject: str
    waiting: dict[int, None] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    since: float | None = None  # when the first member had loaded it


class TwoPhaseActivation:
    """The supervisor's thread only.

    A worker is given by an id that is never used twice, content by its digest `key`, and the version that has this
    content by its name `subject`, "model:version".

    decide     delivers a decision to a worker
    late       reports that a version serves before every worker has it
    name_of    a worker's name, for reasons
    patience   seconds
    clock      monotonic seconds
    """

    def __init__(
        self, decide: Decide, late: Late, *, name_of: Callable[[int], str], patience: float, clock: Callable[[], float]
    ) -> None:
        self._decide = decide
        self._late = late
        self._name_of = name_of
        self._patience = patience
        self._clock = clock
        self._members: set[int] = set()
        self._open: dict[str, _ActivationQuestion] = {}
        self._serves: dict[str, dict[int, str]] = {}  # subject → worker → key

    def join(self, worker: int) -> None:
        """Makes the worker a member: versions wait for it, and its failures count."""
        self._members.add(worker)
        self._settle_all()

    def leave(self, worker: int) -> None:
        """Removes a worker: versions no longer wait for it."""
        self._members.discard(worker)
        for question in self._open.values():
            question.waiting.pop(worker, None)
            question.failed.pop(worker, None)
        for workers in self._serves.values():
            workers.pop(worker, None)
        self._settle_all()

    def loaded(self, worker: int, key: str, subject: str) -> None:
        """A worker has loaded the content and waits for a decision."""
        question = self._question(worker, key, subject)
        question.waiting[worker] = None
        question.failed.pop(worker, None)
        if question.since is None and worker in self._members:
            question.since = self._clock()
        self._settle(key, question)

    def failed(self, worker: int, key: str, subject: str, reason: str) -> None:
        """A worker could not load the content."""
        question = self._question(worker, key, subject)
        question.waiting.pop(worker, None)
        question.failed[worker] = reason
        self._settle(key, question)

    def withdrawn(self, worker: int, key: str) -> None:
        """A worker that waited for a decision no longer wants the content."""
        question = self._open.get(key)
        if question is not None:
            question.waiting.pop(worker, None)
            if not question.waiting:
                question.since = None
            self._drop_empty(key, question)

    def ended(self, worker: int, subject: str) -> None:
        """A worker no longer serves the version, whatever its content."""
        workers = self._serves.get(subject)
        if workers is not None:
            workers.pop(worker, None)
            if not workers:
                del self._serves[subject]
        self._forget_failures(worker, subject)

    def try_again(self, model: str) -> None:
        """An operator has the model loaded: every worker tries again, and what failed before does not count."""
        for key, question in list(self._open.items()):
            if question.subject.rpartition(":")[0] == model:
                question.failed.clear()
                self._settle(key, question)

    @property
    def due(self) -> float | None:
        """The clock time at which `tick` has something to do; None if nothing waits."""
        times = [question.since for question in self._open.values() if question.since is not None]
        return min(times) + self._patience if times else None

    def tick(self) -> None:
        """Activates the versions that have waited for longer than `patience`."""
        now = self._clock()
        for key, question in list(self._open.items()):
            if question.since is not None and now >= question.since + self._patience:
                self._late(question.subject, sorted(self._missing(key, question)))
                self._activate(key, question)

    def _question(self, worker: int, key: str, subject: str) -> _ActivationQuestion:
        self._forget_failures(worker, subject, but=key)
        return self._open.setdefault(key, _ActivationQuestion(subject))

    def _forget_failures(self, worker: int, subject: str, but: str = "") -> None:
        """Drops the worker's failures with other content of this version: that content is no longer on disk."""
        for key, question in list(self._open.items()):
            if key != but and question.subject == subject and question.failed.pop(worker, None) is not None:
                self._drop_empty(key, question)

    def _missing(self, key: str, question: _ActivationQuestion) -> set[int]:
        serving = self._serves.get(question.subject, {})
        return {member for member in self._members if member not in question.waiting and serving.get(member) != key}

    def _settle_all(self) -> None:
        for key, question in list(self._open.items()):
            self._settle(key, question)

    def _settle(self, key: str, question: _ActivationQuestion) -> None:
        if not question.waiting:
            question.since = None
            self._drop_empty(key, question)
            return
        failed = [(worker, reason) for worker, reason in question.failed.items() if worker in self._members]
        serving = self._serves.get(question.subject, {})
        if failed:
            culprit, reason = failed[0]
            waiting, question.waiting, question.since = question.waiting, {}, None
            for worker in waiting:
                self._decide(worker, key, f"{self._name_of(culprit)} could not load it: {reason}")
        elif not self._missing(key, question) and self._members:
            self._activate(key, question)
        elif any(serving.get(member) == key for member in self._members):
            for worker in [worker for worker in question.waiting if worker not in self._members]:
                del question.waiting[worker]
                self._serve(worker, key, question.subject)

    def _activate(self, key: str, question: _ActivationQuestion) -> None:
        del self._open[key]
        for worker in question.waiting:
            self._serve(worker, key, question.subject)

    def _serve(self, worker: int, key: str, subject: str) -> None:
        self._serves.setdefault(subject, {})[worker] = key
        self._decide(worker, key, "")

    def _drop_empty(self, key: str, question: _ActivationQuestion) -> None:
        if not question.waiting and not question.failed:
            self._open.pop(key, None)
