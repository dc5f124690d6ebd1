"""Loads one version with the real loader, backends and scheduler, without a manager."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from support.scheduling import submit

from inferd.backends.registry import Registry
from inferd.server.compat.pbtxt import read_triton_config
from inferd.server.config.load import model_config
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.errors import ServingError
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree
from inferd.server.scheduling.request import callback_request

LIMIT = 60.0


def triton_settings(directory: Path) -> tuple[ModelConfig, tuple[str, ...]]:
    """The settings and the notes of a model directory with a config.pbtxt. Unknown fields are among the notes."""
    read = read_triton_config(directory / "config.pbtxt", directory.name)
    config, notes = model_config(ServerConfig(), directory.name, None, read.values)
    return config, (*read.unknown, *notes)


class CancelledAt(Cancellation):
    """A cancellation that happens at the n-th check (0: the first)."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self._left = look

    def check(self) -> None:
        if self._left == 0:
            self.cancel("a test wants it so")
        self._left -= 1
        super().check()


def load(version: Path, config: ModelConfig | None = None, **parts: Any) -> Servable:
    """Loads a version directory. The caller must close the servable's scheduler. Raises LoadError."""
    loader = Loader(Registry(), cpu_threads=1, **parts)
    disk = VersionOnDisk(int(version.name), version, read_tree(version))
    request = LoadRequest(ServableId(version.parent.name, disk.number), 1, disk, config or ModelConfig())
    return loader.load(request, Cancellation())


def ask(servable: Servable, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Runs one request and returns its outputs. Raises the ServingError with which it ends."""
    done = threading.Event()
    request = callback_request(servable.default_signature, inputs, lambda request: done.set(), **options)
    submit(servable.scheduler, request)
    assert done.wait(LIMIT), "no answer"
    if request.error is not None:
        raise request.error
    assert request.outputs is not None
    return request.outputs


__all__ = ["CancelledAt", "ServingError", "ask", "load", "triton_settings"]
