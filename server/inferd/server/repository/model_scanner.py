"""Scans one model's directory: its settings, its versions, and whether each version may be loaded.

A version that is no longer found counts as gone only after the settle time, because a directory that is replaced by two
renames is missing for a moment. A directory that cannot be read keeps the result of the scan before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from inferd.server.errors import LayoutError
from inferd.server.repository.disk import ModelOnDisk, VersionOnDisk
from inferd.server.repository.layout import SETTINGS_FILES, LinkRule, readable, version_directories
from inferd.server.repository.model_settings import SettingsReader
from inferd.server.repository.settle import Settle
from inferd.server.repository.tree import Tree, read_tree

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")


class ModelScanner:
    """Scans model directories. One thread only.

    `keys` collects the keys that a scan has used with `Settle`. RepositoryScanner empties it before each scan.
    """

    def __init__(self, settings: SettingsReader, settle: Settle, ready_file: str | None = None) -> None:
        self.keys: set[Hashable] = set()
        self._settings = settings
        self._settle = settle
        self._ready_file = ready_file

    def scan(
        self, name: str, directory: Path, rule: LinkRule, before: ModelOnDisk | None, *, first: bool, is_model: bool
    ) -> ModelOnDisk | None:
        """Scans `directory` once. Returns None if it is no model; with `is_model`, that is an error of the model.

        `before` is the result of the scan before. `first`: old files have settled at once (see Settle). Never raises.
        """
        try:
            numbers = version_directories(directory)
        except OSError as error:
            return self.unreadable(name, directory, before, f"{directory} cannot be read: {error.strerror or error}")
        has_settings = any((directory / file).exists() for file in SETTINGS_FILES)
        if not numbers and before is None and not has_settings and not is_model:
            return None
        self.keys.add((directory, "settings"))
        settings = self._settings.read(name, directory, rule, first=first)
        versions = {number: self._version(directory, number, names, rule, first) for number, names in numbers.items()}
        if before is not None and before.directory == directory:
            versions = self.with_absent(
                versions, {version.number: version for version in before.versions}, lambda n: (directory, n, "absent")
            )
        problem = settings.error
        if not versions and not problem:
            problem = f"{directory} has no version: expected a directory named by an integer, such as {directory / '1'}"
        ordered = tuple(versions[number] for number in sorted(versions, reverse=True))
        return ModelOnDisk(name, directory, settings.config, ordered, problem, settings.held, settings.notes)

    def unreadable(self, name: str, directory: Path, before: ModelOnDisk | None, reason: str) -> ModelOnDisk:
        """The model as the scan before has found it, with the reason why it cannot be read now."""
        reason = readable(reason)
        if before is None:
            return ModelOnDisk(name, directory, error=reason)
        self.remember(before)
        return replace(before, error=reason)

    def remember(self, model: ModelOnDisk) -> None:
        """Keeps the settle state of a model that is not scanned now, so that it need not settle again."""
        self.keys.add((model.directory, "settings"))
        self.keys.update((model.directory, version.number) for version in model.versions)

    def with_absent(
        self, found: dict[_Key, _Item], before: dict[_Key, _Item], key: Callable[[_Key], Hashable]
    ) -> dict[_Key, _Item]:
        """`found`, and those items of `before` that have been missing for less than the settle time. `key` gives the
        settle key of an item."""
        kept = dict(found)
        for name, item in before.items():
            if name not in found:
                self.keys.add(key(name))
                if not self._settle.observe(key(name), "absent"):
                    kept[name] = item
        return kept

    def _version(self, model: Path, number: int, names: list[str], rule: LinkRule, first: bool) -> VersionOnDisk:
        path = model / names[0]
        key = (model, number)
        self.keys.add(key)
        if len(names) > 1:
            return VersionOnDisk(
                number, path, error=f"version {number} has {len(names)} directories: {', '.join(names)}"
            )
        try:
            tree = read_tree(path, rule)
        except LayoutError as error:
            return VersionOnDisk(number, path, error=readable(str(error)))
        except OSError as error:
            return VersionOnDisk(number, path, error=readable(f"{path} cannot be read: {error.strerror or error}"))
        settled = self._settle.observe(key, tree, newest_change=tree.newest_ctime if first else None)
        held = self._held(tree)
        settling = not held and not settled
        if settling:
            held = "its files are still changing, or too new to be sure that they are not"
        return VersionOnDisk(number, path, tree, held=held, settling=settling)

    def _held(self, tree: Tree) -> str:
        if tree.held:
            return readable(tree.held)
        if self._ready_file and not any(file.path == self._ready_file for file in tree.files):
            return f"{self._ready_file} is not there yet (repository.ready_file)"
        return ""
