"""Loading and unloading isolated versions: the same errors as in the server's process, and nothing left behind."""

from __future__ import annotations

import gc
import os
from operator import le
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.faulty import Fault, write
from support.loading import CancelledAt, ask
from support.waiting import eventually

from inferd.backends.api import LoadError
from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.cancellation import Cancellation, LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

Load = Any


def children() -> set[int]:
    """The child processes of this process that have not been reaped."""
    while True:
        try:
            lists = [(task / "children").read_text() for task in Path("/proc/self/task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended, and another one has inherited its children
        return {int(pid) for pids in lists for pid in pids.split()}


def refusal(load: Load, text: str, **settings: Any) -> str:
    with pytest.raises(LoadError) as refused:
        load("m", text, **settings)
    return str(refused.value)


def test_a_refused_version_has_the_same_error_as_in_the_servers_process(load: Load) -> None:
    for fault in (Fault.REFUSE, Fault.RAISE):
        before = children()
        isolated = refusal(load, fault.name)
        assert isolated == refusal(load, fault.name, isolation="none")
        assert children() == before
    assert isolated == "KeyError: 'nobody meant to raise this'"


def test_an_unreadable_artefact_has_the_same_error_as_in_the_servers_process(loader: Loader, tmp_path: Path) -> None:
    version = write(tmp_path / "m" / "1")
    (version / "model.faulty").write_bytes(b"\xff\xfe")
    messages = []
    for isolation in ("process", "none"):
        disk = VersionOnDisk(1, version, read_tree(version))
        request = LoadRequest(ServableId("m", 1), 1, disk, ModelConfig(isolation=isolation))
        with pytest.raises(LoadError) as refused:
            loader.load(request, Cancellation())
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("UnicodeDecodeError")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.CRASH, "the worker process was killed by signal 11 (SIGSEGV)"),
        (Fault.EXIT, "the worker process ended with exit code 3"),
        (Fault.HANG, "the worker process did not answer for 2 s and was killed"),
        (Fault.PROTOCOL, "the worker process broke the connection"),
    ],
)
def test_a_worker_that_ends_while_it_loads_is_a_failed_load(load: Load, fault: Fault, reason: str) -> None:
    before = children()
    start = "2s" if fault is Fault.HANG else "60s"  # on a busy machine its interpreter alone may take 2 s to start
    assert refusal(load, fault.name, start=start).startswith(reason)
    assert children() == before


def test_a_worker_that_ends_in_the_warm_up_is_a_failed_load(load: Load) -> None:
    """A model may refuse data that the server has generated, but its process must not end because of it."""
    x = {"name": "x", "dtype": "FP32", "shape": [-1, 4], "sample": [float(Fault.CRASH), 1.0, 1.0, 1.0]}
    signature = {"inputs": [x]}
    assert "its worker process was killed by signal 11 (SIGSEGV)" in refusal(load, "", signatures=[signature])


def test_a_load_that_is_cancelled_leaves_no_process(loader: Loader, tmp_path: Path) -> None:
    version = write(tmp_path / "m" / "1")
    before = children()
    disk = VersionOnDisk(1, version, read_tree(version))
    with pytest.raises(LoadCancelled):
        loader.load(LoadRequest(ServableId("m", 1), 1, disk, ModelConfig(isolation="process")), CancelledAt(2))
    assert children() == before


def test_a_stateful_model_serves_with_a_new_instance_after_its_warm_up(load: Load) -> None:
    """It serves with a new instance, and the one used for the warm-up is closed."""
    servable = load(stateful=True)
    assert servable.serves
    assert servable.scheduler._model._instances == [servable.scheduler._group.workers[0]._instance]
    assert ask(servable, {"x": np.zeros((1, 4), np.float32)})["y"].tolist() == [[1, 1, 1, 1]]


def test_check_opens_an_isolated_version_in_a_process_too(loader: Loader, tmp_path: Path) -> None:
    version = write(tmp_path / "m" / "1")
    before = children()
    disk = VersionOnDisk(1, version, read_tree(version))
    request = LoadRequest(ServableId("m", 1), 1, disk, ModelConfig(isolation="process"))
    with loader.placed(request) as (model, backend):
        assert backend.name == "faulty"
        assert any(note.startswith("isolation: in process") for note in model.traits.notes)
        assert children() != before
    assert children() == before


def test_a_backend_that_a_worker_cannot_import_is_refused(tmp_path: Path) -> None:
    from support.faulty import FaultyBackend

    class Local(FaultyBackend):
        pass

    registry = Registry(plugins=[])
    registry.add(Local())
    version = write(tmp_path / "m" / "1")
    disk = VersionOnDisk(1, version, read_tree(version))
    request = LoadRequest(ServableId("m", 1), 1, disk, ModelConfig(isolation="process"))
    with pytest.raises(LoadError, match="lives in this process only"):
        Loader(registry, cpu_threads=1).load(request, Cancellation())


@pytest.mark.timeout(600)
def test_many_loads_leave_no_descriptor_process_or_thread(loader: Loader, tmp_path: Path) -> None:
    import threading

    version = write(tmp_path / "m" / "1")

    def cycle(settings: ModelConfig) -> None:
        disk = VersionOnDisk(1, version, read_tree(version))
        loader.unload(loader.load(LoadRequest(ServableId("m", 1), 1, disk, settings), Cancellation()))

    def held() -> tuple[int, int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(children()), threading.active_count()

    quick = ModelConfig(isolation="process", batching={"mode": "off"}, warmup={"mode": "off"}, instances={"count": 2})
    cycle(quick)
    before = held()
    for _ in range(LOADS):
        cycle(quick)
    eventually(lambda: all(map(le, held(), before)), f"no more than {before}", held)


LOADS = int(os.environ.get("INFERD_TEST_LOADS", "12"))
