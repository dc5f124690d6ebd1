"""Models that are named one by one, each with a directory of its own wherever it lies: TensorFlow Serving's base paths.

Beside the repository's roots, and like them a wish for what is served; it can be replaced as a whole while the server
runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from inferd.server.compat.model_server_config import ModelEntry, read_models_file
from inferd.server.config.schema import ServerConfig


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """`base_path`: the absolute directory whose subdirectories are versions. `settings`: keys of model.yaml that stand
    above all others, as written. `platform`: what a ModelServerConfig calls the kind of model; "" where none was
    given."""

    base_path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    platform: str = ""

    @classmethod
    def of(cls, entry: ModelEntry) -> ConfiguredModel:
        """The model that an entry of a ModelServerConfig asks for."""
        return cls(Path(os.path.abspath(entry.base_path)), entry.settings(), entry.platform)


@dataclass(frozen=True, slots=True)
class Change:
    """What a replacement changes, by name: models to be looked at anew (new, or asked for differently), and models that
    are gone."""

    changed: frozenset[str]
    removed: frozenset[str]


class ConfiguredModels:
    """The named models in force. Thread-safe: `current` is replaced, never changed."""

    def __init__(self, models: Mapping[str, ConfiguredModel] | None = None) -> None:
        self.current: Mapping[str, ConfiguredModel] = MappingProxyType(dict(models or {}))

    @classmethod
    def of(cls, config: ServerConfig) -> ConfiguredModels:
        """Those of repository.models and repository.models_file. Raises ConfigError."""
        models = fixed_models(config)
        if config.repository.models_file is not None:
            entries = read_models_file(Path(config.repository.models_file)).entries
            models.update((entry.name, ConfiguredModel.of(entry)) for entry in entries)
        return cls(models)

    def replace(self, models: Mapping[str, ConfiguredModel]) -> Change:
        """Puts these in the place of all that there were."""
        before, self.current = self.current, MappingProxyType(dict(models))
        return Change(
            frozenset(name for name, model in models.items() if before.get(name) != model),
            frozenset(name for name in before if name not in models),
        )

    def over(self, config: ServerConfig, name: str) -> ServerConfig:
        """The server's settings with those of this named model above all others."""
        model = self.current.get(name)
        if model is None or not model.settings:
            return config
        entry = {**config.models.get(name, {}), **model.settings}
        return config.model_copy(update={"models": {**config.models, name: entry}})


def fixed_models(config: ServerConfig) -> dict[str, ConfiguredModel]:
    """Those of repository.models, which a change of repository.models_file leaves as they are."""
    return {
        name: ConfiguredModel(Path(os.path.abspath(path))) for name, path in sorted(config.repository.models.items())
    }
