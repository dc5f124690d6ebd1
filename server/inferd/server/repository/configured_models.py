"""Configured models: models that are named one by one, each with a base path of its own (as in TensorFlow Serving).

They are served in addition to the models in the repository's roots. All of them can be replaced at once while the
server runs.
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
from inferd.server.errors import Forbidden


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """One configured model.

    base_path   absolute directory whose subdirectories are versions
    settings    keys of model.yaml, as written; they override all other settings of the model
    platform    the model_platform of a ModelServerConfig; "" if none was given
    """

    base_path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    platform: str = ""

    @classmethod
    def of(cls, entry: ModelEntry) -> ConfiguredModel:
        """The model of one entry of a ModelServerConfig."""
        return cls(Path(os.path.abspath(entry.base_path)), entry.settings(), entry.platform)


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of a replacement: names of models that are new or have other settings, and of models that are gone."""

    changed: frozenset[str]
    removed: frozenset[str]


class ConfiguredModels:
    """The current configured models, by name. Thread-safe: `current` is replaced, never changed."""

    def __init__(self, models: Mapping[str, ConfiguredModel] | None = None) -> None:
        self.current: Mapping[str, ConfiguredModel] = MappingProxyType(dict(models or {}))

    @classmethod
    def of(cls, config: ServerConfig) -> ConfiguredModels:
        """The models of repository.models and repository.models_file. Raises ConfigError."""
        models = fixed_models(config)
        if config.repository.models_file is not None:
            entries = read_models_file(Path(config.repository.models_file)).entries
            models.update((entry.name, ConfiguredModel.of(entry)) for entry in entries)
        return cls(models)

    def replace(self, models: Mapping[str, ConfiguredModel]) -> Change:
        """Replaces all configured models."""
        before, self.current = self.current, MappingProxyType(dict(models))
        return Change(
            frozenset(name for name, model in models.items() if before.get(name) != model),
            frozenset(name for name in before if name not in models),
        )

    def apply_to(self, config: ServerConfig, name: str) -> ServerConfig:
        """The server's settings, overridden by the settings of the configured model `name`, if there is one."""
        model = self.current.get(name)
        if model is None or not model.settings:
            return config
        entry = {**config.models.get(name, {}), **model.settings}
        return config.model_copy(update={"models": {**config.models, name: entry}})


class BasePaths:
    """The places in which a request may put a base path: the repository's roots, `repository.base_paths`, and the
    directories in which the models of the server's own configuration lie beside each other. Constant; thread-safe."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises ConfigError when repository.models_file cannot be read."""
        own = (model.base_path.parent for model in ConfiguredModels.of(config).current.values())
        places = (
            *config.repository.roots,
            *config.repository.base_paths,
            *(str(parent) for parent in own if parent != parent.parent),
        )
        self._places = tuple(dict.fromkeys(map(os.path.realpath, places)))

    def check(self, model: ConfiguredModel, name: str) -> None:
        """Raises Forbidden for a base path that, with links resolved, lies in none of the places."""
        target = Path(os.path.realpath(model.base_path))
        if not any(target.is_relative_to(place) and str(target) != place for place in self._places):
            raise Forbidden(
                f"model {name}: base_path {str(model.base_path)[:200]!r} lies outside the directories of the server's "
                "own configuration (repository.roots, repository.base_paths, and where its configured models lie)"
            )


def fixed_models(config: ServerConfig) -> dict[str, ConfiguredModel]:
    """The models of repository.models. Changes of repository.models_file do not affect them."""
    return {
        name: ConfiguredModel(Path(os.path.abspath(path))) for name, path in sorted(config.repository.models.items())
    }
