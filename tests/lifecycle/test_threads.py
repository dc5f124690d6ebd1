"""The parts that run on threads of their own: pool, source, manager, and their end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from support.lifecycle import FakeClock, FakeLoader
from support.waiting import eventually

from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.errors import Unavailable
from inferd.server.lifecycle.assemble import WatchedSource, resolver
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.load_runner import LoadRunner
from inferd.server.lifecycle.loading.pool import LoadPool
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.reconcile.events import Event, LoadFailed, LoadSucceeded
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId, State, StateChange
from inferd.server.repository.disk import Listing, VersionOnDisk
from inferd.server.repository.file_events import FileEvents
from inferd.server.repository.source import RepositoryScanner, Source

TIMEOUT = 30.0


def test_the_pool_takes_models_in_turn_and_leaves_hashing_for_later() -> None:
    pool = LoadPool(1)
    began, go, done = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        began.set()
        go.wait(TIMEOUT)

    pool.submit("first", first)
    assert began.wait(TIMEOUT)
    pool.submit("a", lambda: order.append("hash"), urgent=False)
    for number in range(3):
        pool.submit("a", lambda number=number: order.append(f"a{number}"))  # type: ignore[misc]
    pool.submit("b", lambda: order.append("b0"))
    pool.submit("z", done.set, urgent=False)
    go.set()
    assert done.wait(TIMEOUT)
    pool.stop()
    assert order == ["a0", "b0", "a1", "a2", "hash"]


def test_a_job_that_raises_leaves_its_thread_at_work() -> None:
    pool = LoadPool(1)
    done = threading.Event()
    pool.submit("a", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    pool.submit("a", done.set)
    assert done.wait(TIMEOUT)
    pool.stop()


def test_a_hanging_job_occupies_one_thread() -> None:
    pool = LoadPool(2)
    release, done = threading.Event(), threading.Event()
    pool.submit("hanging", lambda: release.wait(TIMEOUT) and None)
    pool.submit("b", done.set)
    assert done.wait(TIMEOUT)
    pool.stop()
    release.set()


def test_jobs_that_hang_give_their_places_to_others() -> None:
    pool = LoadPool(2, patience=0.05)
    release, done = threading.Event(), threading.Event()
    for number in range(5):
        pool.submit(f"hanging{number}", lambda: release.wait(TIMEOUT) and None)
    pool.submit("b", done.set)
    assert done.wait(TIMEOUT)
    pool.stop()
    release.set()


def test_hashing_that_hangs_gives_its_place_to_other_hashing() -> None:
    pool = LoadPool(2, patience=0.05)
    release, done = threading.Event(), threading.Event()
    pool.submit("hanging", lambda: release.wait(TIMEOUT) and None, urgent=False)
    pool.submit("b", done.set, urgent=False)
    assert done.wait(TIMEOUT)
    pool.stop()
    release.set()


def test_only_so_many_jobs_give_their_places_up() -> None:
    clock = FakeClock()
    pool = LoadPool(1, patience=1.0, forgotten=100.0, clock=clock)
    began: SimpleQueue[int] = SimpleQueue()
    release = threading.Event()

    def hang(number: int) -> None:
        began.put(number)
        release.wait(TIMEOUT)

    for number in range(20):
        pool.submit(number, partial(hang, number))
    for number in range(9):  # one runs, eight are overdue
        assert began.get(timeout=TIMEOUT) == number
        clock.advance(2.0)
        pool.submit("nothing", lambda: None, urgent=False)  # makes the pool look at the clock
    assert began.empty()
    clock.advance(100.0)
    pool.submit("nothing", lambda: None, urgent=False)
    assert began.get(timeout=TIMEOUT) == 9
    pool.stop()
    release.set()


def test_a_load_that_takes_too_long_has_failed_and_is_closed_in_the_end(tmp_path: Path) -> None:
    loader, mailbox = FakeLoader(), Mailbox()
    pool = LoadPool(1, patience=0.05)
    runner = LoadRunner(loader, pool, mailbox, timeout=0.2)
    began, release = threading.Event(), threading.Event()
    load = loader.load

    def hang(request: LoadRequest, cancellation: Cancellation) -> Servable:
        began.set()
        release.wait(TIMEOUT)
        return load(request, Cancellation())  # as a framework, it does not notice that it is cancelled

    loader.load = hang  # type: ignore[method-assign]
    version = VersionOnDisk(1, tmp_path)
    (tmp_path / "model").write_text("good")
    requests = [LoadRequest(ServableId("m", 1), generation, version, ModelConfig()) for generation in (1, 2, 3)]
    cancellation = Cancellation()

    def heard() -> Event:
        mailbox.wait(TIMEOUT)
        mailbox.prepare_wait()
        happened = mailbox.take()
        assert happened is not None
        return happened

    runner.load(requests[0], cancellation)
    assert began.wait(TIMEOUT)
    failed = heard()
    assert isinstance(failed, LoadFailed)
    assert failed.reason == "it was not loaded within 0.2 s (load.timeout)"
    assert cancellation.reason == failed.reason
    runner.load(requests[1], Cancellation())
    failed = heard()
    assert isinstance(failed, LoadFailed)
    assert "has not come back yet" in failed.reason
    release.set()
    eventually(lambda: loader.unloads == [("m", 1, 1)], "what came too late is closed")
    runner.load(requests[2], Cancellation())
    assert isinstance(heard(), LoadSucceeded)
    pool.stop()


class Running:
    """A manager on its real threads, with a loader that can be stopped in the middle."""

    def __init__(self, root: Path, **sections: Any) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        repository = {"roots": (str(root),), "settle": 0.0, "poll": 3600.0} | sections.pop("repository", {})
        self.config = ServerConfig(repository=repository, **sections)
        self.loader = FakeLoader()
        self.source = Source(
            RepositoryScanner(self.config.repository, resolver(self.config)), poll=self.config.repository.poll
        )
        self.manager = Manager(self.config, self.source, self.loader)
        self.heard: SimpleQueue[StateChange] = SimpleQueue()
        self.manager.subscribe(self.heard.put)

    def write(self, path: str, text: str = "good") -> None:
        # Renamed into place: with a settle time of 0 a scan must never see half a version.
        file = self.root / path
        hidden = file.parent.parent / f".{file.parent.name}.new"
        hidden.mkdir(parents=True)
        (hidden / file.name).write_text(text)
        hidden.rename(file.parent)

    def until(self, state: State, version: int = 1) -> None:
        while True:
            change = self.heard.get(timeout=TIMEOUT)
            if (change.status.id.version, change.status.state) == (version, state):
                return


@pytest.fixture
def make_running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(**sections: Any) -> Running:
        made.append(Running(tmp_path / "models", **sections))
        return made[-1]

    yield make
    for running in made:
        running.manager.stop(0.0)


def test_from_disk_to_service_and_back(make_running: Callable[..., Running]) -> None:
    running = make_running()
    running.write("m/1/model", "one")
    running.manager.start()
    assert running.manager.wait_ready(TIMEOUT)
    assert running.manager.load("m", by="me").result(TIMEOUT).versions[0].state is State.AVAILABLE
    with running.manager.acquire("m") as servable:
        scheduler: Any = servable.scheduler
        assert running.loader.texts[servable.generation] == "one"
    running.write("m/2/model", "two")
    running.source.wake()
    running.until(State.AVAILABLE, 2)
    running.manager.stop(TIMEOUT)
    assert scheduler.closed == 1
    assert {version for _, version, _ in running.loader.unloads} == {1, 2}
    assert not running.manager.ready()
    with pytest.raises(Unavailable, match="shutting down"):
        running.manager.acquire("m")
    running.manager.stop(TIMEOUT)


class SlowScanner:
    """Scans end when the test says so."""

    due = None

    def __init__(self) -> None:
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go: SimpleQueue[None] = SimpleQueue()

    def scan(self, sequence: int) -> Listing:
        self.begun.put(sequence)
        self.go.get(timeout=TIMEOUT)
        return Listing(sequence=sequence)


def test_a_scan_under_way_does_not_count_as_an_answer() -> None:
    scanner: Any = SlowScanner()
    source = Source(scanner, poll=3600.0)
    listings: SimpleQueue[Listing] = SimpleQueue()
    source.start(listings.put)
    assert scanner.begun.get(timeout=TIMEOUT) == 1
    wanted = source.request_scan()
    scanner.go.put(None)
    assert listings.get(timeout=TIMEOUT).sequence < wanted
    scanner.go.put(None)
    assert listings.get(timeout=TIMEOUT).sequence >= wanted
    source.stop()


def test_stop_waits_for_requests(make_running: Callable[..., Running]) -> None:
    running = make_running()
    running.write("m/1/model")
    running.manager.start()
    running.until(State.AVAILABLE)
    handle = running.manager.acquire("m")
    stopper = threading.Thread(target=running.manager.stop, args=(TIMEOUT,))
    stopper.start()
    running.until(State.UNLOADING)
    assert running.loader.unloads == []
    handle.release()
    running.until(State.END)
    stopper.join(TIMEOUT)
    assert not stopper.is_alive()
    assert running.loader.unloads == [("m", 1, 1)]


def test_stop_closes_servables_after_the_grace(make_running: Callable[..., Running]) -> None:
    running = make_running()
    running.write("m/1/model")
    running.manager.start()
    running.until(State.AVAILABLE)
    running.manager.acquire("m")
    running.manager.stop(0.05)
    assert running.loader.unloads == [("m", 1, 1)]


def test_stop_does_not_wait_for_a_hanging_load(make_running: Callable[..., Running]) -> None:
    running = make_running()
    loading, release = threading.Event(), threading.Event()

    def hang(request: LoadRequest) -> None:
        loading.set()
        release.wait(TIMEOUT)

    running.loader.on_load = hang
    running.write("m/1/model")
    running.manager.start()
    assert loading.wait(TIMEOUT)
    waiting = running.manager.load("m", by="me")
    running.manager.stop(0.0)
    with pytest.raises(Unavailable, match="shutting down"):
        waiting.result(TIMEOUT)
    release.set()


def test_operations_after_the_stop_do_not_hang(make_running: Callable[..., Running]) -> None:
    running = make_running()
    running.manager.start()
    assert running.manager.wait_ready(TIMEOUT)
    running.manager.stop(0.0)
    future: Future[Any] = running.manager.unload("m", by="me")
    with pytest.raises(Unavailable):
        future.result(TIMEOUT)


def test_stop_without_start(make_running: Callable[..., Running]) -> None:
    make_running().manager.stop(0.0)


def test_preloading_comes_before_ready(make_running: Callable[..., Running]) -> None:
    running = make_running(server={"preload": ("torch",)})
    running.manager.start()
    assert running.manager.wait_ready(TIMEOUT)
    assert running.loader.preloaded == ("torch",)


def test_one_listener_that_fails_does_not_silence_the_others(make_running: Callable[..., Running]) -> None:
    running = make_running()
    running.manager.subscribe(lambda change: 1 / 0)  # type: ignore[arg-type,return-value]
    later: SimpleQueue[StateChange] = SimpleQueue()
    end = running.manager.subscribe(later.put)
    running.write("m/1/model")
    running.manager.start()
    assert later.get(timeout=TIMEOUT).status.state is State.START
    end()


def test_file_events_wake_the_source(tmp_path: Path, make_running: Callable[..., Running]) -> None:
    pytest.importorskip("watchfiles")
    running = make_running()
    woken = threading.Event()
    events = FileEvents(woken.set)
    events.follow([str(running.root), str(tmp_path / "not-there")])
    events.start()
    try:
        # Watching begins some time after the start: write until it is noticed.
        for number in range(600):
            (running.root / f"file{number}").write_text("x")
            if woken.wait(0.05):
                break
        assert woken.is_set()
    finally:
        events.stop()


def test_links_are_not_followed_by_the_watch(tmp_path: Path, make_running: Callable[..., Running]) -> None:
    """A recursive watch of a link to a large tree has stopped the whole server."""
    pytest.importorskip("watchfiles")
    running = make_running()
    (tmp_path / "outside").mkdir()
    running.write("m/1/model")
    running.write("m/docs/text")
    (running.root / "m/docs/away").symlink_to(tmp_path / "outside")
    heard: SimpleQueue[Listing] = SimpleQueue()
    running.source.start(heard.put)
    listed = heard.get(timeout=TIMEOUT).directories
    running.source.stop()
    assert listed == (str(running.root), str(running.root / "m"), str(running.root / "m/1"))


def test_a_watched_source_sees_a_version_before_the_poll(make_running: Callable[..., Running]) -> None:
    pytest.importorskip("watchfiles")
    running = make_running()
    source = WatchedSource(running.source, FileEvents(running.source.wake))
    manager = Manager(running.config, source, running.loader)
    heard: SimpleQueue[StateChange] = SimpleQueue()
    manager.subscribe(heard.put)
    manager.start()
    try:
        assert manager.wait_ready(TIMEOUT)
        running.write("m/1/model")
        (running.root / "nudge").mkdir()
        while heard.empty():
            # A watch that was not yet set up when the version came sees the next change.
            (running.root / "nudge").touch()
            threading.Event().wait(0.05)
        while heard.get(timeout=TIMEOUT).status.state is not State.AVAILABLE:
            pass
    finally:
        manager.stop(0.0)


def test_hashing_takes_one_thread_at_most() -> None:
    pool = LoadPool(2)
    hashing, release, done = threading.Event(), threading.Event(), threading.Event()

    def hash_first() -> None:
        hashing.set()
        release.wait(TIMEOUT)

    second = threading.Event()
    pool.submit("a", hash_first, urgent=False)
    assert hashing.wait(TIMEOUT)
    pool.submit("b", second.set, urgent=False)
    pool.submit("c", done.set)
    assert done.wait(TIMEOUT)
    assert not second.is_set()
    release.set()
    assert second.wait(TIMEOUT)
    pool.stop()


def test_waiting_for_ready_ends_with_the_server(make_running: Callable[..., Running]) -> None:
    running = make_running(server={"readiness": ("never",)})
    running.manager.start()
    waited: SimpleQueue[bool] = SimpleQueue()
    threading.Thread(target=lambda: waited.put(running.manager.wait_ready(TIMEOUT))).start()
    running.manager.stop(0.0)
    assert waited.get(timeout=TIMEOUT) is False
