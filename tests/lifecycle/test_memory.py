"""What loads leave in the collector's generations."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from inferd.server.lifecycle.memory import Memory


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    before = gc.get_freeze_count()
    yield
    if not before:
        gc.unfreeze()


def test_what_a_framework_brings_in_is_frozen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
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


def test_an_unload_collects_what_hangs_together() -> None:
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
        Memory().after_unload()
        assert Node.closed
    finally:
        gc.enable()
