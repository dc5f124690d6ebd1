"""Directories in a root that are no models but look as if they were meant to be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from inferd.backends.api import BackendError
from inferd.server.lifecycle.loading.loader import Registry
from inferd.server.repository.layout import subdirectories, version_number


def misplaced(root: Path, models: Collection[str], registry: Registry) -> Iterator[tuple[Path, str]]:
    """Each such directory with what was expected of it. `models`: the names that the scan found. Never raises."""
    for name in _names(root):
        directory = root / name
        if name in models or version_number(name) is not None:
            continue  # a number is a version: the root is one model's own directory, which the scan says
        artefact = _artefact(directory, registry)
        if artefact is not None:
            there = directory / "1" / artefact.name
            yield (
                directory,
                f"{artefact.name} lies directly in {directory}: expected a version between them, as {there}",
            )
            continue
        for inside in _names(directory):
            if version_number(inside) is None and _artefact(directory / inside, registry) is not None:
                wanted = directory / "1"
                yield directory, f"{directory / inside}: expected a version named by an integer, such as {wanted}"


def _names(directory: Path) -> list[str]:
    try:
        return subdirectories(directory)
    except OSError:
        return []  # the scan says so


def _artefact(directory: Path, registry: Registry) -> Path | None:
    try:
        return registry.detect(directory, None)[1]
    except (BackendError, OSError):
        return None
