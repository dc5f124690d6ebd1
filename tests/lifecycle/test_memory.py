"""What loads leave in the collector's generations."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from inferd.server.lifecycle.resources.memory import IdleCollector, ProcessMemory


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    before = gc.get_freeze_count()
    yield
    if not before:
        gc.unfreeze()


def test_objects_of_a_framework_are_frozen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ProcessMemory()
    memory.settle_imports()
    frozen = gc.get_freeze_count()
    assert frozen > 1000
    model = [[] for _ in range(5000)]
    memory.settle_imports()
    assert gc.get_freeze_count() == frozen, "a model is not an import: it stays collectable"
    for number in range(60):
        monkeypatch.setitem(sys.modules, f"framework_part_{number}", ModuleType("part"))
    memory.settle_imports()
    assert gc.get_freeze_count() > frozen
    assert len(model) == 5000


def test_an_unload_collects_cycles() -> None:
    class Node:
        closed = False

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            Node.closed = True

    gc.disable()
    try:
        Node()
        assert not Node.closed
        ProcessMemory().after_unload()
        assert Node.closed
    finally:
        gc.enable()


def test_a_collection_waits_for_a_moment_without_requests_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    done, collected = iter([True, True, False]), []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(next(done, None)))
    ProcessMemory(lambda: next(done)).after_unload()
    assert collected == [None], "it came after the last request"
    clock = iter(range(100))
    monkeypatch.setattr("inferd.server.lifecycle.resources.memory.time.monotonic", lambda: float(next(clock)))
    ProcessMemory(lambda: True).after_unload()
    assert len(collected) == 2


def test_full_collections_wait_until_nothing_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy, collected = 0.0, True, []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(now))
    monkeypatch.setattr(gc, "get_count", lambda: (0, 1, 0))
    collector = IdleCollector(lambda: busy, lambda: now)
    before = gc.get_threshold()
    collector.start()
    try:
        assert gc.get_threshold()[2] > 1_000_000
        for now in range(0, 3600, 10):  # noqa: B007 - read by the clock
            collector.tend()
        assert collected == []
        busy = False
        collector.tend()
        assert len(collected) == 1
        collector.tend()
        assert len(collected) == 1, "one is enough for a while"
        busy = True
        now += 3600
        collector.tend()
        assert len(collected) == 2, "a server that is never idle collects too"
    finally:
        collector.stop()
    assert gc.get_threshold() == before
