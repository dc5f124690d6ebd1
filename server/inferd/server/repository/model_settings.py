"""A model's settings from its directory: `model.yaml` and `config.pbtxt`.

They are read again when their stats change. While a file is being written, the settings read before stay in force.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.server.compat.pbtxt import read_triton_config
from inferd.server.config.document import read_document
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ModelConfig
from inferd.server.errors import LayoutError
from inferd.server.repository.layout import MODEL_FILE, SETTINGS_FILES, TRITON_FILE, LinkRule
from inferd.server.repository.settle import Settle

Resolve = Callable[[str, Path, Mapping[str, Any] | None, Mapping[str, Any] | None], tuple[ModelConfig, tuple[str, ...]]]
"""(model name, its directory, content of model.yaml, content of config.pbtxt) → (settings from all layers, notes).
Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`config` is None if the settings cannot be read (`error` says why) or are still being written (`held` says
    which)."""

    config: ModelConfig | None
    error: str = ""
    held: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _CachedSettings:
    stamp: tuple[Any, ...]
    settings: ModelSettings


class SettingsReader:
    """Reads each model's settings, once for each change. One thread only."""

    def __init__(self, resolve: Resolve, settle: Settle) -> None:
        self._resolve = resolve
        self._settle = settle
        # The key holds the name, too: several configured models may share one base path and have different settings.
        self._cached: dict[tuple[str, Path], _CachedSettings] = {}

    def read(self, name: str, directory: Path, rule: LinkRule, *, first: bool) -> ModelSettings:
        """The settings of the model `name`. Never raises: an error is part of the result.

        `first`: old files have settled at once (see Settle).
        """
        try:
            stamp, newest = _stamp(directory, rule)
        except LayoutError as error:
            return ModelSettings(None, error=str(error))
        except OSError as error:
            return ModelSettings(None, error=f"{directory}: settings cannot be read: {error.strerror or error}")
        key = (name, directory)
        cached = self._cached.get(key)
        settled = self._settle.observe((directory, "settings"), stamp, newest_change=newest if first else None)
        if cached is not None and cached.stamp == stamp:
            return cached.settings
        if stamp and not settled:
            if cached is not None:
                return cached.settings
            return ModelSettings(None, held=f"{' and '.join(entry[0] for entry in stamp)}: still being written")
        settings = self._read(name, directory, stamp)
        self._cached[key] = _CachedSettings(stamp, settings)
        return settings

    def keep(self, directories: Iterable[Path]) -> None:
        """Forgets the settings of all models outside these directories."""
        wanted = set(directories)
        self._cached = {key: cached for key, cached in self._cached.items() if key[1] in wanted}

    def forget(self, directory: Path) -> None:
        """Makes the next scan read the settings in `directory` again, because settings that override its files have
        changed."""
        self._cached = {key: cached for key, cached in self._cached.items() if key[1] != directory}

    def _read(self, name: str, directory: Path, stamp: tuple[Any, ...]) -> ModelSettings:
        names = {entry[0] for entry in stamp}
        notes: list[str] = []
        try:
            model_file = read_document(directory / MODEL_FILE) if MODEL_FILE in names else None
            triton: Mapping[str, Any] | None = None
            if TRITON_FILE in names:
                config = read_triton_config(directory / TRITON_FILE, name)
                triton = config.values
                if config.unknown:
                    notes.append(f"{TRITON_FILE}: not honoured: {', '.join(config.unknown)}")
            resolved, further = self._resolve(name, directory, model_file, triton)
            return ModelSettings(resolved, notes=(*notes, *further))
        except (LayoutError, ConfigError) as error:
            return ModelSettings(None, error=str(error), notes=tuple(notes))


def _stamp(directory: Path, rule: LinkRule) -> tuple[tuple[Any, ...], float]:
    entries = []
    newest = 0.0
    for name in SETTINGS_FILES:
        path = directory / name
        try:
            if path.is_symlink():
                rule.check(path)
            found = os.stat(path)
        except FileNotFoundError:
            continue
        entries.append((name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
        newest = max(newest, found.st_ctime)
    return tuple(entries), newest
