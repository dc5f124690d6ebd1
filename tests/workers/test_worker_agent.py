"""A worker's end of the link: what is asked of it before it can do anything is done later, and in order."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Override
from inferd.server.lifecycle.state import ModelStatus
from inferd.server.workers import messages as m
from inferd.server.workers.link import Link
from inferd.server.workers.worker_agent import WorkerAgent

LIMIT = 20.0
WISHES = ModelOverrides((Override("unloaded", None, "op", 1.0),))


class Manager:
    """In the manager's place: says what it is asked for."""

    acquire = serving = None

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def subscribe(self, _listener: object) -> None:
        pass

    def adopt_overrides(self, name: str, wishes: ModelOverrides) -> None:
        self.calls.append(("wished", name, wishes))

    def unload(self, name: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        self.calls.append(("unload", name, version, by))
        done: Future[ModelStatus] = Future()
        done.set_result(ModelStatus(name))
        return done

    def load(self, name: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        raise OSError("no such thing")


class Supervisor:
    """The other end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.told: queue.Queue[Any] = queue.Queue()
        self.link = Link(ours, lambda message, _answer: self.told.put(message), lambda: None, name="supervisor's end")
        self.link.start()
        self.link.tell(m.Begin(ServerConfig(), 1, 2, late=True))
        self.seat = WorkerAgent(lambda received, lost: Link(theirs, received, lambda: None, name="worker's end"))

    def ping(self) -> None:
        """Returns when the worker has read what came before."""
        self.link.ask(m.Ping()).result(LIMIT)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.link.close()


def test_what_is_wished_while_a_worker_starts_reaches_its_manager(supervisor: Supervisor) -> None:
    """It began with the wishes of then, and imports a framework meanwhile."""
    supervisor.link.tell(m.Wished("m", WISHES))
    done = supervisor.link.ask(m.Operation("unload", "other", "op"))
    supervisor.link.tell(m.GroupReady())
    supervisor.ping()
    manager = Manager()
    front = supervisor.seat.manager_of_group(manager)  # type: ignore[arg-type]
    assert done.result(LIMIT) == ModelStatus("other")
    assert manager.calls == [("wished", "m", WISHES), ("unload", "other", None, "op")]
    told: list[bool] = []
    front.on_ready(lambda: told.append(True))
    assert told == [True]


def test_one_message_that_comes_to_nothing_does_not_deafen_the_worker(supervisor: Supervisor) -> None:
    supervisor.seat.manager_of_group(Manager())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="OSError: no such thing"):
        supervisor.link.ask(m.Operation("load", "m", "op")).result(LIMIT)
    supervisor.ping()


def test_the_end_of_the_link_is_told_whatever_ends_it() -> None:
    ours, theirs = socket.socketpair()
    lost: queue.Queue[bool] = queue.Queue()
    link = Link(ours, lambda _message, _answer: None, lambda: lost.put(True), name="ours")
    link.start()
    question = link.ask(m.Ping())
    with theirs:
        theirs.sendall(b"\0\0\0\4junk")
        assert lost.get(timeout=LIMIT)
    with pytest.raises(Exception, match="the other process is gone"):
        question.result(LIMIT)
