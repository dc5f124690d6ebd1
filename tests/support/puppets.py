"""A supervisor with fake workers ("puppets"): the processes do nothing, the links are real, and the test sends the
workers' messages."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.reconcile.backoff import Backoff
from inferd.server.workers import messages as m
from inferd.server.workers.child import Child
from inferd.server.workers.link import Answer, Link
from inferd.server.workers.supervisor import Supervisor

LIMIT = 20.0
M = TypeVar("M")


class Puppet:
    """One fake worker. Answers pings unless `mute`; `heard` holds all other messages from the supervisor."""

    def __init__(self, child: Child, end: socket.socket) -> None:
        self.child = child
        self.number = child.number
        self.mute = False
        self.heard: queue.Queue[tuple[Any, Answer | None]] = queue.Queue()
        self._link = Link(end, self._received, lambda: None, name="a puppet's end")
        self._link.start()

    def says(self, *messages: object) -> None:
        for message in messages:
            self._link.tell(message)

    def asks(self, message: object) -> Any:
        return self._link.ask(message)

    def hears(self, kind: type[M]) -> M:
        """Waits for the next message of this kind; earlier messages are dropped."""
        return self.hears_question(kind)[0]

    def hears_question(self, kind: type[M]) -> tuple[M, Answer | None]:
        while True:
            message, answer = self.heard.get(timeout=LIMIT)
            if isinstance(message, kind):
                return message, answer

    def serves(self) -> None:
        """Sends what a real worker sends until it serves."""
        self.hears(m.Begin)
        if not self.child.late:
            self.says(m.Opened((), ()))
        self.says(m.Ready("no models"))
        if self.child.late:
            self.hears(m.Open)
            self.says(m.Opened((), ()))

    def die(self) -> None:
        """Ends as if killed."""
        assert self.child.process is not None
        self.child.process.kill()
        self._link.close()

    def leave(self) -> None:
        """Waits for the order to leave, and ends."""
        self.hears(m.Leave)
        self.die()

    def _received(self, message: Any, answer: Answer | None) -> None:
        if self.mute:
            return
        if isinstance(message, m.Ping):
            assert answer is not None
            answer(None)
        else:
            self.heard.put((message, answer))


class Stage:
    """A running supervisor, and its fake workers in the order in which it has started them.

    refusals   how many of the next starts fail, as on a system that has no process to give
    pause      seconds before a worker that died is replaced
    """

    def __init__(self, *, pause: float = 0.01, **server: Any) -> None:
        settings = {"workers": 2, "listen": "127.0.0.1:0", "http": [], **server}
        self.supervisor = Supervisor(ServerConfig.model_validate({"server": settings}), backoff=Backoff(pause, pause))
        self.refusals = 0
        self.ready = threading.Event()
        self.ended_well: bool | None = None
        self._all: list[Puppet] = []
        self._puppets: queue.Queue[Puppet] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def next(self) -> Puppet:
        """Waits for the next worker that the supervisor starts."""
        return self._puppets.get(timeout=LIMIT)

    def both_serve(self) -> tuple[Puppet, Puppet]:
        """The first two workers, when both serve."""
        first, second = self.next(), self.next()
        for one in (first, second):
            one.serves()
        assert self.ready.wait(LIMIT)
        return first, second

    def no_worker_starts(self) -> bool:
        """Whether the supervisor, having done all jobs that were posted before, has started no worker."""
        self._settle()
        return self._puppets.empty()

    def run_timers(self) -> None:
        """Makes the supervisor run all jobs now that it has scheduled for later."""
        jobs = self.supervisor._jobs

        def make_due() -> None:
            jobs._timers[:] = sorted((0.0, number, job) for _, number, job in jobs._timers)

        jobs.post(make_due)
        self._settle()

    def _settle(self) -> None:
        done = threading.Event()
        self.supervisor._jobs.post(done.set)
        assert done.wait(LIMIT)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.supervisor.stop_now()
        for puppet in self._all:
            puppet.die()
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self.ended_well = self.supervisor.run(lambda _summary: self.ready.set())

    def start(self, child: Child, received: Callable[..., None], lost: Callable[[Child], None]) -> None:
        """Replaces Child.start."""
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        supervisor_end, worker_end = socket.socketpair()
        child.process = subprocess.Popen(["sleep", "600"])
        child._link = Link(
            supervisor_end,
            lambda message, answer: received(child, message, answer),
            lambda: lost(child),
            name="supervisor's end",
        )
        child._link.start()
        self._all.append(Puppet(child, worker_end))
        self._puppets.put(self._all[-1])


@contextmanager
def stage(monkeypatch: pytest.MonkeyPatch, *, refusals: int = 0, pause: float = 0.01, **server: Any) -> Iterator[Stage]:
    """A Stage whose supervisor runs."""
    made = Stage(pause=pause, **server)
    made.refusals = refusals
    monkeypatch.setattr(Child, "start", lambda *arguments: made.start(*arguments))  # noqa: PLW0108 (a function binds)
    made.begin()
    try:
        yield made
    finally:
        made.end()
