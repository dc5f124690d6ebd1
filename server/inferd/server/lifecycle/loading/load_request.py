"""The request for one load."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One version to load, as it is on disk now, with its settings.

    generation   counts the loads of the process: every load has another one
    notes        what an operator should know of the settings
    insisted     an operator has asked for this version by number: it is not compared with the one in service
    """

    id: ServableId
    generation: int
    version: VersionOnDisk
    config: ModelConfig
    notes: tuple[str, ...] = ()
    insisted: bool = False
