"""A model's settings from its directory: `model.yaml` and `config.pbtxt`.

They are read again when their stats change. While a file is being written, the settings read before stay in force.
Whatever is wrong with a file is an error of that model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.backends.files import FileRefused, OpenRoot
from inferd.server.compat.pbtxt import parse_triton_config
from inferd.server.config.document import decode_document
from inferd.server.config.errors import ConfigError
from inferd.server.config.schema import ModelConfig
from inferd.server.errors import LayoutError
from inferd.server.observability.events import event, get
from inferd.server.repository.layout import MODEL_FILE, SETTINGS_FILES, TRITON_FILE
from inferd.server.repository.settle import Settle

log = get("lifecycle")

MOST_BYTES = 4 * 2**20  # of one file
_LONGEST = 500  # characters of an unforeseen error

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

    @staticmethod
    def present(listed: int) -> bool:
        """Whether the directory with this descriptor has a settings file, whatever it is. Raises OSError."""
        for name in SETTINGS_FILES:
            try:
                os.stat(name, dir_fd=listed, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return True
        return False

    def read(self, name: str, directory: Path, files: OpenRoot, listed: int, *, first: bool) -> ModelSettings:
        """The settings of the model `name`, whose directory has the descriptor `listed`. Never raises: an error is part
        of the result.

        `first`: old files have settled at once (see Settle).
        """
        try:
            stamp, newest = _stamp(directory, files, listed)
        except FileRefused as error:
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
        settings = self._read(name, directory, files, listed, stamp)
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

    def _read(self, name: str, directory: Path, files: OpenRoot, listed: int, stamp: tuple[Any, ...]) -> ModelSettings:
        names = {entry[0] for entry in stamp}
        notes: list[str] = []
        try:
            model_file = triton = None
            if MODEL_FILE in names:
                data = _content(directory / MODEL_FILE, files, listed)
                model_file = decode_document(data, str(directory / MODEL_FILE))
            if TRITON_FILE in names:
                data = _content(directory / TRITON_FILE, files, listed)
                config = parse_triton_config(data, str(directory / TRITON_FILE), name)
                triton = config.values
                if config.unknown:
                    notes.append(f"{TRITON_FILE}: not honoured: {config.unknown_text}")
            resolved, further = self._resolve(name, directory, model_file, triton)
            return ModelSettings(resolved, notes=(*notes, *further))
        except (LayoutError, ConfigError, FileRefused) as error:
            return ModelSettings(None, error=str(error), notes=tuple(notes))
        except OSError as error:
            reason = f"{error.filename or directory}: settings cannot be read: {error.strerror or error}"
            return ModelSettings(None, error=reason)
        except Exception as error:  # also MemoryError and RecursionError
            text = f"{type(error).__name__}: {error}"[:_LONGEST]
            event(log, logging.ERROR, "settings could not be read in an unforeseen way", error=error, model=name)
            return ModelSettings(None, error=f"{directory}: settings cannot be read: {text}")


def _stamp(directory: Path, files: OpenRoot, listed: int) -> tuple[tuple[Any, ...], float]:
    entries = []
    newest = 0.0
    for name in SETTINGS_FILES:
        try:
            with files.find(name, listed, directory / name) as file:
                found = file.stat
        except FileNotFoundError:
            continue
        entries.append((name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
        newest = max(newest, found.st_ctime)
    return tuple(entries), newest


def _content(path: Path, files: OpenRoot, listed: int) -> bytes:
    with files.find(path.name, listed, path) as file:
        return file.read(MOST_BYTES)
