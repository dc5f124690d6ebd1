"""How the manager ends: everybody who asked for something is answered and everything loaded is closed, whatever comes
in whatever moment of the end. Its thread is the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.lifecycle import FakeLoader, SteppedManager

from inferd.server.errors import Unavailable
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.pool import spawn
from inferd.server.lifecycle.reconcile.activation_barrier import ActivationBarrier
from inferd.server.lifecycle.reconcile.events import LoadFailed
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ModelStatus, ServableId, State


class WatchedMailbox(Mailbox):
    """Calls `at_step` before each of its steps and after the last one, with what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.at_step: Callable[[str], None] = lambda step: None

    def __getattribute__(self, name: str) -> Any:
        if name in ("take", "close_if_empty", "close", "prepare_wait", "wait", "empty"):
            object.__getattribute__(self, "at_step")(name)
        return object.__getattribute__(self, name)


class Ending(SteppedManager):
    """A stepped whose manager ends on the test's thread. `mailbox` is the manager's."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, barrier: ActivationBarrier | None = None) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("inferd.server.lifecycle.manager.Mailbox", WatchedMailbox)
            super().__init__(root, barrier)
        self.mailbox: Any = self.manager._mailbox
        self.write("m/1/model", "one")
        self.settle()
        self.manager._reconciler._transitions._unloader._spawn = lambda name, job: job()

    def end(self) -> None:
        """All of it: what the manager's thread does after a stop."""
        self.manager.begin_stop(1.0)
        self.manager._run()


@pytest.fixture
def make_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ending]:
    numbers = count()
    return lambda **parts: Ending(tmp_path / f"models-{next(numbers)}", monkeypatch, **parts)


def steps(ending: Ending) -> list[str]:
    seen: list[str] = []
    ending.mailbox.at_step = seen.append
    ending.end()
    return seen


def test_a_request_is_answered_at_every_step_of_the_stop(make_ending: Callable[..., Ending]) -> None:
    """The manager was found to be running, and then it stopped."""
    seen = steps(make_ending())
    assert {"take", "close_if_empty", "close"} <= set(seen)
    for moment in range(len(seen) + 1):
        ending = make_ending()
        ending.manager._operations.refuse = lambda: None  # type: ignore[method-assign]
        asked: list[Future[ModelStatus]] = []
        left = [moment]

        def ask(step: str, ending: Ending = ending, asked: list[Any] = asked, left: list[int] = left) -> None:
            if left[0] == 0:
                asked.append(ending.manager.unload("m", by="me"))
            left[0] -= 1

        ending.mailbox.at_step = ask
        ending.end()
        if not asked:
            ask("after the end")
        assert asked[0].done(), f"nobody answers what comes at step {moment} of {seen}"
        with pytest.raises(Unavailable, match="shutting down"):
            asked[0].result(0)


def test_a_request_is_answered_when_another_event_fails_in_the_last_turn(make_ending: Callable[..., Ending]) -> None:
    ending = make_ending()
    ending.manager._operations.refuse = lambda: None  # type: ignore[method-assign]
    asked: list[Future[ModelStatus]] = []

    def ask(step: str) -> None:
        if step == "close" and not asked:
            ending.mailbox._closed = False  # the grace is over, and jobs are left
            ending.mailbox.post(LoadFailed(ServableId("nobody", 1), 1, "no such load"))
            asked.append(ending.manager.unload("m", by="me"))

    ending.mailbox.at_step = ask
    ending.end()
    with pytest.raises(Unavailable, match="shutting down"):
        asked[0].result(0)


def test_requests_to_a_manager_that_never_started_are_answered(stepped: SteppedManager) -> None:
    waiting = stepped.manager.load("m", by="me")
    stepped.manager.stop(0.0)
    with pytest.raises(Unavailable, match="shutting down"):
        waiting.result(0)
    stepped.manager.stop(0.0)
    with pytest.raises(Unavailable, match="shutting down"):
        stepped.manager.load("m", by="me").result(0)


def test_after_a_stop_nothing_is_started(stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM may come before the server has come as far as that."""
    started: list[object] = []
    monkeypatch.setattr(stepped.source, "start", started.append)
    stepped.manager.stop(0.0)
    stepped.manager.start()
    assert not started
    assert stepped.manager._thread is None


class Careless(FakeLoader):
    """Brings each load to its end, wanted or not."""

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        return super().load(request, Cancellation())


def test_a_version_loaded_after_the_stop_is_closed(make_ending: Callable[..., Ending]) -> None:
    """In whatever step of the end the load is done."""
    moments = len(steps(make_ending())) + 1
    for moment in range(moments):
        ending = make_ending()
        parts = ending.manager._reconciler._transitions
        ending.loader = parts._runner._loader = parts._unloader._loader = Careless()
        ending.write("m/2/model", "two")
        ending.pool.held.add("m")
        ending.settle()
        [(_, load)] = [job for job in ending.pool.urgent if job[0] == "m"]
        left = [moment]

        def finish(step: str, load: Callable[[], None] = load, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                load()

        ending.mailbox.at_step = finish
        ending.end()
        if left[0] >= 0:
            load()
        [request] = ending.loader.requests
        assert ("m", 2, request.generation) in ending.loader.unloads, f"loaded at step {moment}, and never closed"


class Undecided:
    """A barrier that never decides."""

    withdrawn = 0

    def loaded(self, *_: object) -> Callable[[], None]:
        def withdraw() -> None:
            self.withdrawn += 1

        return withdraw

    def failed(self, *_: object) -> None:
        pass


def test_a_version_that_waits_for_the_barrier_is_closed_before_the_end(make_ending: Callable[..., Ending]) -> None:
    barrier = Undecided()
    ending = make_ending(barrier=barrier)
    assert ending.version(1).state is State.LOADING
    ending.end()
    assert ending.loader.unloads == [("m", 1, 1)]
    assert barrier.withdrawn == 1


def test_servables_are_closed_even_when_no_thread_can_be_started(
    stepped: SteppedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    stepped.write("m/1/model", "one")
    stepped.settle()
    stepped.manager._reconciler._transitions._unloader._spawn = spawn
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert stepped.do(stepped.manager.unload("m", by="me")).versions[0].state is State.END
    assert stepped.loader.unloads == [("m", 1, 1)]
