"""What the loader is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One version to load, as it lies on disk now, with its settings. `generation` counts the loads of the process."""

    id: ServableId
    generation: int
    version: VersionOnDisk
    config: ModelConfig
    notes: tuple[str, ...] = ()
