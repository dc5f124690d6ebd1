"""Fixtures for tests with a manager of a repository on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.disk import Disk
from support.lifecycle import SteppedManager


@pytest.fixture
def stepped(tmp_path: Path) -> SteppedManager:
    return SteppedManager(tmp_path / "models")


@pytest.fixture
def make_stepped(tmp_path: Path) -> Callable[..., SteppedManager]:
    def make(**sections: Any) -> SteppedManager:
        return SteppedManager(tmp_path / "models", **sections)

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "models"
    root.mkdir()
    return Disk(root)
