"""The worker's end of the link: messages that come before the manager exists are handled later, in order."""

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
OVERRIDES = ModelOverrides((Override("unloaded", None, "op", 1.0),))


class Manager:
    """A fake manager that records its calls."""

    acquire = serving = None

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def subscribe(self, _listener: object) -> None:
        pass

    def adopt_overrides(self, name: str, overrides: ModelOverrides) -> None:
        self.calls.append(("adopt", name, overrides))

    def unload(self, name: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        self.calls.append(("unload", name, version, by))
        done: Future[ModelStatus] = Future()
        done.set_result(ModelStatus(name))
        return done

    def load(self, name: str, version: int | None, *, by: str) -> Future[ModelStatus]:
        raise OSError("no such thing")


class Supervisor:
    """The supervisor's end of the link, and the agent under test at the other end."""

    def __init__(self) -> None:
        supervisor_end, worker_end = socket.socketpair()
        self.messages: queue.Queue[Any] = queue.Queue()
        self.link = Link(
            supervisor_end, lambda message, _answer: self.messages.put(message), lambda: None, name="supervisor's end"
        )
        self.link.start()
        self.link.tell(m.Begin(ServerConfig(), 1, 2, late=True))
        self.agent = WorkerAgent(lambda received, lost: Link(worker_end, received, lambda: None, name="worker's end"))

    def ping(self) -> None:
        """Returns when the worker has read all earlier messages."""
        self.link.ask(m.Ping()).result(LIMIT)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.link.close()


def test_messages_received_while_a_worker_starts_reach_its_manager(supervisor: Supervisor) -> None:
    """The overrides change while the worker imports a framework."""
    supervisor.link.tell(m.OverridesChanged("m", OVERRIDES))
    done = supervisor.link.ask(m.Operation("unload", "other", "op"))
    supervisor.link.tell(m.GroupReady())
    supervisor.ping()
    manager = Manager()
    worker_manager = supervisor.agent.worker_manager(manager)  # type: ignore[arg-type]
    assert done.result(LIMIT) == ModelStatus("other")
    assert manager.calls == [("adopt", "m", OVERRIDES), ("unload", "other", None, "op")]
    calls: list[bool] = []
    worker_manager.on_ready(lambda: calls.append(True))
    assert calls == [True]


def test_a_message_that_fails_does_not_end_the_link(supervisor: Supervisor) -> None:
    supervisor.agent.worker_manager(Manager())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="OSError: no such thing"):
        supervisor.link.ask(m.Operation("load", "m", "op")).result(LIMIT)
    supervisor.ping()


def test_the_end_of_the_link_is_reported_when_a_frame_cannot_be_read() -> None:
    supervisor_end, worker_end = socket.socketpair()
    lost: queue.Queue[bool] = queue.Queue()
    link = Link(supervisor_end, lambda _message, _answer: None, lambda: lost.put(True), name="supervisor's end")
    link.start()
    question = link.ask(m.Ping())
    with worker_end:
        worker_end.sendall(b"\0\0\0\4junk")
        assert lost.get(timeout=LIMIT)
    with pytest.raises(Exception, match="the other process is gone"):
        question.result(LIMIT)
