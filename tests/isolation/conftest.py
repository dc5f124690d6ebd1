"""Versions of the faulty test backend in worker processes, loaded by the real loader but without a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.faulty import TESTS, FaultyBackend, Gates, write

from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

Load = Callable[..., Servable]
_MODELS_OWN = ("batching", "instances", "signatures", "stateful", "warmup")


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader with the faulty backend. Sets PYTHONPATH, so that workers can import it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    registry = Registry(plugins=[])
    registry.add(FaultyBackend())
    return Loader(registry, cpu_threads=1)


@pytest.fixture
def load(loader: Loader, tmp_path: Path) -> Iterator[Load]:
    """Loads version 1 of a model with `isolation: process` and the given worker settings; unloads it at the end."""
    loaded: list[Servable] = []

    def load(name: str = "m", text: str = "", isolation: str = "process", **settings: Any) -> Servable:
        version = write(tmp_path / name / "1", text)
        more = {key: settings.pop(key) for key in _MODELS_OWN if key in settings}
        config = ModelConfig(isolation=isolation, worker=settings, **more)
        disk = VersionOnDisk(1, version, read_tree(version))
        servable = loader.load(LoadRequest(ServableId(name, 1), 1, disk, config), Cancellation())
        loaded.append(servable)
        return servable

    yield load
    for servable in loaded:
        loader.unload(servable)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    """Gates at which the loads of this test can be made to wait."""
    gates = Gates(tmp_path / "gates")
    yield gates
    gates.open()
