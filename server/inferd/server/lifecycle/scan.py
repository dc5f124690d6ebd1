"""One look at one repository root, and the caution that belongs to it.

What a scan cannot read it keeps as it was: an unreadable root or model is a problem to report, never a reason to
unload. What a scan does not find any more is gone only when it stays away for the settle time: between the two renames
of a replacement a directory is missing for a moment. And a root that is suddenly empty is believed only when it is
still the same directory and was written to since, or an unmounted disk would look like a repository whose models were
all deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from inferd.server.lifecycle.disk import ModelOnDisk, VersionOnDisk
from inferd.server.lifecycle.layout import (
    SETTINGS_FILES,
    LayoutError,
    LinkRule,
    base_path_hint,
    readable,
    subdirectories,
    version_directories,
)
from inferd.server.lifecycle.settings import SettingsReader
from inferd.server.lifecycle.settle import Settle
from inferd.server.lifecycle.tree import Tree, read_tree

_Key = TypeVar("_Key", bound=Hashable)
_Thing = TypeVar("_Thing")


class RootScanner:
    """Looks at one root again and again. One thread only.

    `models` are the models by name, `error` what is wrong with the root itself, `read_once` whether it could ever be
    read.
    """

    def __init__(
        self,
        root: Path,
        *,
        settings: SettingsReader,
        settle: Settle,
        allowed_link_targets: tuple[str, ...] = (),
        ready_file: str | None = None,
    ) -> None:
        self.root = root
        self.models: dict[str, ModelOnDisk] = {}
        self.error = ""
        self.read_once = False
        self._settings = settings
        self._settle = settle
        self._allowed = allowed_link_targets
        self._ready_file = ready_file
        self._identity: tuple[int, int, int] | None = None  # device, inode and mtime when models were last seen
        self._keys: set[Hashable] = set()

    def scan(self) -> set[Hashable]:
        """Looks once and gives the settle keys in use. Never raises."""
        self._keys = set()
        first = not self.read_once
        try:
            rule = LinkRule(self.root, self._allowed)
            names = subdirectories(rule.root)
            found = os.stat(rule.root)
        except OSError as error:
            self._unreadable(f"{self.root} cannot be read: {error.strerror or error}")
            return self._keys
        hint = base_path_hint(self.root, names) if not self.models else None
        if hint is not None:
            self.error = hint
            self.read_once = True
            return self._keys
        identity = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if not names and self.models:
            emptied = self._identity is not None and identity[:2] == self._identity[:2] and identity != self._identity
            if not emptied:
                self._unreadable(f"{self.root} is empty and not the directory that held the models: is it mounted?")
                return self._keys
        else:
            self._identity = identity
        self.error = ""
        self.read_once = True
        models = {}
        for name in names:
            model = self._model(name, rule, first)
            if model is not None:
                models[name] = model
        self.models = self._with_absent(models, self.models, lambda name: (self.root, name, "absent"))
        return self._keys

    def _unreadable(self, error: str) -> None:
        self.error = error
        # Their sightings stay: a root that comes back unchanged has nothing to settle again.
        for name, model in self.models.items():
            self._keys.add((self.root / name, "settings"))
            self._keys.update((self.root / name, version.number) for version in model.versions)

    def _with_absent(
        self, found: dict[_Key, _Thing], before: dict[_Key, _Thing], key: Callable[[_Key], Hashable]
    ) -> dict[_Key, _Thing]:
        """`found` and, of what was there before, all that has not been away for the settle time yet."""
        kept = dict(found)
        for name, thing in before.items():
            if name not in found:
                self._keys.add(key(name))
                if not self._settle.observe(key(name), "absent"):
                    kept[name] = thing
        return kept

    def _model(self, name: str, rule: LinkRule, first: bool) -> ModelOnDisk | None:
        directory = self.root / name
        before = self.models.get(name)
        try:
            if directory.is_symlink():
                rule.check(directory)
            numbers = version_directories(directory)
        except (LayoutError, OSError) as error:
            reason = str(error) if isinstance(error, LayoutError) else f"{directory} cannot be read: {error.strerror}"
            reason = readable(reason)
            if before is not None:
                self._keys.update((directory, version.number) for version in before.versions)
                return replace(before, error=reason)
            return ModelOnDisk(name, directory, error=reason)
        if not numbers and before is None and not any((directory / file).exists() for file in SETTINGS_FILES):
            return None  # a directory of something else
        self._keys.add((directory, "settings"))
        settings = self._settings.read(name, directory, rule, first=first)
        versions = {number: self._version(directory, number, names, rule, first) for number, names in numbers.items()}
        if before is not None:
            versions = self._with_absent(
                versions, {version.number: version for version in before.versions}, lambda n: (directory, n, "absent")
            )
        problem = settings.error
        if not versions and not problem:
            problem = f"{directory} has no version: expected a directory named by an integer, such as {directory / '1'}"
        ordered = tuple(versions[number] for number in sorted(versions, reverse=True))
        return ModelOnDisk(name, directory, settings.config, ordered, problem, settings.held, settings.notes)

    def _version(self, model: Path, number: int, names: list[str], rule: LinkRule, first: bool) -> VersionOnDisk:
        path = model / names[0]
        key = (model, number)
        self._keys.add(key)
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
