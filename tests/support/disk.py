"""A model repository on disk that the test scans, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.lifecycle import FakeClock

from inferd.backends.registry import Registry
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.assemble import resolver
from inferd.server.repository.disk import Listing, ModelOnDisk
from inferd.server.repository.source import RepositoryScanner


class Disk:
    """A repository on disk, and a scanner with a fake clock."""

    def __init__(self, root: Path, *more: Path, **repository: Any) -> None:
        self.root = root
        self.clock = FakeClock()
        roots = (str(root), *map(str, more))
        self.config = ServerConfig(repository={"roots": roots, "settle": 2.0, "poll": 1.0} | repository)
        self.scanner = RepositoryScanner(
            self.config.repository,
            resolver(self.config),
            artefacts=Registry().artefact_names,
            clock=self.clock,
            wall_clock=self.clock.wall,
        )

    def write(self, path: str, text: str = "good") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def scan(self, after: float = 0.0) -> Listing:
        self.clock.advance(after)
        return self.scanner.scan()

    def settled(self) -> Listing:
        self.scan()
        return self.scan(after=2.0)

    def model(self, name: str = "m", after: float = 0.0) -> ModelOnDisk:
        return self.scan(after).models[name]


def ready(model: ModelOnDisk) -> list[int]:
    return [version.number for version in model.versions if version.ready]
