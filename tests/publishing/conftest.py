"""Tiny models to publish, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.marked import write_version

from inferd.server.publishing import probe, probe_worker
from inferd.server.publishing.publication import Published, PublishSettings, publish
from inferd.server.publishing.tasks import TaskFailed


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    """A model y = x + 1 for rows of 4."""
    write_version("onnx", tmp_path / "trained", 1.0)
    return tmp_path / "trained" / "model.onnx"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are loaded in this process: the same code, without two seconds for a new process each time."""

    def run(_command: object, request: Mapping[str, Any], **_rest: object) -> dict[str, Any]:
        found = probe_worker.answer(request, lambda _line: None)
        if "failed" in found:
            raise TaskFailed(found["failed"], found.get("install", ()))
        return found["done"]

    monkeypatch.setattr(probe, "run_task", run)


@pytest.fixture
def published(repository: Path) -> Callable[..., Published]:
    def run(what: object, model: str = "m", **settings: object) -> Published:
        return publish(model, str(what), repository, PublishSettings(**settings))  # type: ignore[arg-type]

    return run


def tree(path: Path) -> set[str]:
    """The files and directories below `path`, without the provenance."""
    return {str(file.relative_to(path)) for file in path.rglob("*") if ".inferd" not in file.relative_to(path).parts}
