"""Scans a directory that holds models: a repository root, or the base path of a configured model.

A root or model that cannot be read is reported and keeps the result of the scan before: it is never a reason to unload.
A directory that is suddenly empty counts as emptied only if it is still the same directory and has been written to.
Otherwise an unmounted disk would look like a repository whose models were all deleted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from inferd.server.errors import LayoutError
from inferd.server.repository.disk import ModelOnDisk
from inferd.server.repository.layout import LinkRule, base_path_hint, root_hint, subdirectories, version_directories
from inferd.server.repository.model_scanner import ModelScanner


class RootScanner:
    """Scans one root. One thread only.

    models      the models found, by name
    error       what is wrong with the root itself, "" for nothing
    read_once   the root has been read at least once
    """

    def __init__(self, root: Path, scanner: ModelScanner, *, allowed_link_targets: tuple[str, ...] = ()) -> None:
        self.root = root
        self.models: dict[str, ModelOnDisk] = {}
        self.error = ""
        self.read_once = False
        self._scanner = scanner
        self._allowed = allowed_link_targets
        self._empty_check = _EmptyCheck()

    def scan(self) -> None:
        """Scans once. Never raises."""
        first = not self.read_once
        try:
            rule = LinkRule(self.root, self._allowed)
            names = subdirectories(rule.root)
            found = os.stat(rule.root)
        except OSError as error:
            self._unreadable(f"{self.root} cannot be read: {error.strerror or error}")
            return
        hint = base_path_hint(self.root, names) if not self.models else None
        if hint is not None:
            self.error = hint
            self.read_once = True
            return
        if not self._empty_check.plausible(found, empty=not names and bool(self.models)):
            self._unreadable(f"{self.root} is empty and not the directory that held the models: is it mounted?")
            return
        self.error = ""
        self.read_once = True
        models = {}
        for name in names:
            model = self._model(name, rule, first)
            if model is not None:
                models[name] = model
        self.models = self._scanner.with_absent(models, self.models, lambda name: (self.root, name, "absent"))

    def _unreadable(self, error: str) -> None:
        self.error = error
        for model in self.models.values():
            self._scanner.remember(model)

    def _model(self, name: str, rule: LinkRule, first: bool) -> ModelOnDisk | None:
        directory = self.root / name
        before = self.models.get(name)
        try:
            if directory.is_symlink():
                rule.check(directory)
        except LayoutError as error:
            return self._scanner.unreadable(name, directory, before, str(error))
        except OSError as error:
            return self._scanner.unreadable(name, directory, before, f"{directory} cannot be read: {error.strerror}")
        return self._scanner.scan(name, directory, rule, before, first=first, is_model=False)


class ConfiguredModelScanner:
    """Scans the base path of one configured model. One thread only.

    model       the result of the last scan
    read_once   the base path has been read at least once
    """

    def __init__(
        self, name: str, directory: Path, scanner: ModelScanner, *, allowed_link_targets: tuple[str, ...] = ()
    ) -> None:
        self.directory = directory
        self.model = ModelOnDisk(name, directory)
        self.read_once = False
        self._scanner = scanner
        self._allowed = allowed_link_targets
        self._empty_check = _EmptyCheck()

    def scan(self) -> None:
        """Scans once. Never raises."""
        before = self.model if self.read_once else None
        name = self.model.name
        try:
            rule = LinkRule(self.directory, self._allowed)
            empty = before is not None and bool(before.versions) and not version_directories(rule.root)
            plausible = self._empty_check.plausible(os.stat(rule.root), empty=empty)
        except OSError as error:
            reason = f"{self.directory} cannot be read: {error.strerror or error}"
            self.model = self._scanner.unreadable(name, self.directory, before, reason)
            return
        if not plausible:
            reason = f"{self.directory} is empty and not the directory that held the versions: is it mounted?"
            self.model = self._scanner.unreadable(name, self.directory, before, reason)
            return
        found = self._scanner.scan(name, self.directory, rule, before, first=not self.read_once, is_model=True)
        assert found is not None
        hint = root_hint(rule.root) if not found.versions else None
        self.model = replace(found, error=hint) if hint is not None else found
        self.read_once = True


class _EmptyCheck:
    """Decides whether a directory that has become empty was emptied, or is another directory (a bare mount point)."""

    def __init__(self) -> None:
        self._identity: tuple[int, int, int] | None = None  # device, inode and mtime when it was last not empty

    def plausible(self, found: os.stat_result, *, empty: bool) -> bool:
        """False if the directory is `empty` although nothing was deleted in it. `found` is its current stat."""
        identity = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if not empty:
            self._identity = identity
            return True
        return self._identity is not None and identity[:2] == self._identity[:2] and identity != self._identity
