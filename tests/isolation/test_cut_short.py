"""A load that is no longer wanted is cut short: its worker process is killed at once, and the next load may begin.
Real processes, which wait at a gate in each step of a load."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from operator import le
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyBackend, Gates, write
from support.waiting import eventually

from inferd.backends.api import LoadError
from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.isolation.process import WorkerLimits, WorkerProcess
from inferd.server.lifecycle.assemble import build_manager
from inferd.server.lifecycle.loading.cancellation import Cancellation, LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.manager import Manager
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId, State, VersionStatus
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

LIMIT = 30.0
REASON = "nobody wants it any more"


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def held() -> tuple[int, int, int]:
    """How many descriptors, child processes and threads this process has."""
    gc.collect()
    children = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            children += len((task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return len(os.listdir("/proc/self/fd")), children, threading.active_count()


def begin(loader: Loader, version: Path, cancellation: Cancellation) -> Future[Servable]:
    """Starts a load on a thread of its own."""
    disk = VersionOnDisk(1, version, read_tree(version))
    config = ModelConfig(isolation="process", warmup={"mode": "auto"})
    request = LoadRequest(ServableId("m", 1), 1, disk, config)
    loading: Future[Servable] = Future()

    def run() -> None:
        try:
            loading.set_result(loader.load(request, cancellation))
        except BaseException as error:
            loading.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return loading


@pytest.mark.parametrize("step", Gates.STEPS)
def test_a_load_is_cut_short_at_each_of_its_steps(
    loader: Loader, tmp_path: Path, gates: Gates, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While it reads the files, imports its framework, opens the version, makes an instance, warms up."""
    version = write(tmp_path / "m" / "1")
    before = held()
    gates.close(step)
    cancellation = Cancellation()
    with caplog.at_level(logging.INFO):
        loading = begin(loader, version, cancellation)
        worker = gates.waiting(step)
        cancellation.cancel(REASON)
        with pytest.raises(LoadCancelled, match=REASON):
            loading.result(LIMIT)
    assert gone(worker)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "nothing has gone wrong"
    del loading
    eventually(lambda: all(map(le, held(), before)), f"no more than {before}", held)


class CancelsAt(Cancellation):
    """Cancels itself at a moment that a test could not hit from outside."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def arm(self, cut: Callable[[str], None]) -> None:
        if self._moment == "before":
            self.cancel(REASON)
        super().arm(cut)
        if self._moment == "armed":
            self.cancel(REASON)

    def disarm(self) -> None:
        if self._moment == "end":
            self.cancel(REASON)
        super().disarm()


@pytest.mark.parametrize("moment", ["before", "armed"])
def test_no_process_is_started_for_a_load_that_is_cancelled_before(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(WorkerProcess, "start", never)
    with pytest.raises(LoadCancelled, match=REASON):
        begin(loader, write(tmp_path / "m" / "1"), CancelsAt(moment)).result(LIMIT)


def test_a_load_that_is_cancelled_as_it_ends_leaves_nothing(loader: Loader, tmp_path: Path) -> None:
    version = write(tmp_path / "m" / "1")
    before = held()
    with pytest.raises(LoadCancelled, match=REASON):
        begin(loader, version, CancelsAt("end")).result(LIMIT)
    eventually(lambda: all(map(le, held(), before)), f"no more than {before}", held)


def test_a_finished_load_is_not_cut_short(loader: Loader, tmp_path: Path) -> None:
    """The manager decides what happens to a loaded version: it may be wanted again."""
    cancellation = Cancellation()
    servable = begin(loader, write(tmp_path / "m" / "1"), cancellation).result(LIMIT)
    cancellation.cancel(REASON)
    assert servable.serves
    assert servable.worker is not None
    assert servable.worker.ask("ping") == {}
    loader.unload(servable)


def test_a_load_that_was_cut_short_does_not_continue_when_it_is_wanted_again(
    loader: Loader, tmp_path: Path, gates: Gates
) -> None:
    gates.close("open")
    cancellation = Cancellation()
    loading = begin(loader, write(tmp_path / "m" / "1"), cancellation)
    gates.waiting("open")
    cancellation.cancel(REASON)
    cancellation.take_back()
    with pytest.raises(LoadCancelled, match=REASON):
        loading.result(LIMIT)


def test_a_process_that_is_cut_before_it_is_started_ends_at_once() -> None:
    before = held()
    worker = WorkerProcess("m", WorkerLimits(), {})
    worker.cut(REASON)
    worker.start()
    eventually(lambda: worker.lost, "it has ended")
    assert REASON in worker.lost
    assert gone(worker.pid)
    worker.end()
    eventually(lambda: all(map(le, held(), before)), f"no more than {before}", held)


def test_without_a_watching_thread_no_process_is_started(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write(tmp_path / "m" / "1")
    before = held()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith("-worker"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LoadError, match="no worker process can be started: can't start new thread"):
        begin(loader, version, Cancellation()).result(LIMIT)
    eventually(lambda: all(map(le, held(), before)), f"no more than {before}", held)


# With a manager: loads caused by the disk and by operators


class Served:
    """A manager on its real threads over a repository with version 1 of m, whose load waits at "open"."""

    def __init__(self, root: Path, gates: Gates) -> None:
        self.root = root
        self.gates = gates
        registry = Registry(plugins=[])
        registry.add(FaultyBackend())
        config = ServerConfig.model_validate(
            {"repository": {"roots": [str(root)], "settle": 0, "poll": 0.05}, "isolation": "process"}
        )
        self.manager: Manager = build_manager(config, registry)
        self.publish()
        gates.close("open")
        self.manager.start()
        self.worker = gates.waiting("open")
        gates.forsake("open")  # the next load does not wait

    def publish(self, text: str = "") -> None:
        """Renames the version into place: with a settle time of 0, a scan must never see an incomplete version."""
        hidden = write(self.root / "m" / ".new", text)
        there = self.root / "m" / "1"
        if there.exists():
            there.rename(self.root / "m" / ".old")
        hidden.rename(there)

    def version(self) -> VersionStatus:
        return self.manager.status("m").versions[0]

    def becomes(self, state: State) -> VersionStatus:
        return eventually(lambda: (found := self.version()).state is state and found, state.name, self.manager.models)


@pytest.fixture
def served(loader: Loader, tmp_path: Path, gates: Gates) -> Iterator[Served]:
    """Needs `loader` because it sets PYTHONPATH."""
    served = Served(tmp_path / "models", gates)
    yield served
    served.manager.stop(0.0)


def test_the_next_load_does_not_wait_for_the_one_that_it_overtakes(served: Served) -> None:
    served.publish("\n")
    version = served.becomes(State.AVAILABLE)
    assert version.generation > 1
    assert gone(served.worker)
    assert not any("cut short" in note for note in version.notes), "the note belonged to the earlier load"


def test_the_status_says_why_a_load_was_cut_short(served: Served) -> None:
    served.manager.unload("m", by="me").result(LIMIT)
    version = served.becomes(State.END)
    assert "the load of generation 1 was cut short: unloaded by an operator" in version.notes
    assert version.error == ""
    eventually(lambda: gone(served.worker), "its process ends")
    assert served.manager.load("m", by="me").result(LIMIT).versions[0].generation == 2


def test_the_history_says_why_a_load_was_cut_short(served: Served) -> None:
    (served.root / "m" / "1").rename(served.root / "m" / ".old")

    def ended() -> Any:
        found = served.version()
        return found.notes if found.notes[:1] == ("removed from disk",) else None

    notes = eventually(ended, "the version is removed", served.manager.models)
    assert notes == ("removed from disk", "the load of generation 1 was cut short: removed from disk")
    assert gone(served.worker)


def test_a_stop_cuts_loads_short(served: Served) -> None:
    served.manager.stop(LIMIT)
    eventually(lambda: gone(served.worker), "its process ends")
