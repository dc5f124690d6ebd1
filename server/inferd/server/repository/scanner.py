"""Scans a directory that holds models: a repository root, or the base path of a configured model.

A root or model that cannot be read is reported and keeps the result of the scan before: it is never a reason to unload.
A directory that is suddenly empty counts as emptied only if it is still the same directory and has been written to.
Otherwise an unmounted disk would look like a repository whose models were all deleted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from inferd.backends.files import FileRule, OpenRoot
from inferd.server.repository.disk import ModelOnDisk
from inferd.server.repository.layout import numbered, readable, root_hint, subdirectories, version_directories
from inferd.server.repository.model_scanner import ModelScanner

_MOST_STRAYS = 100  # files in a root that are listed as misplaced


class RootScanner:
    """Scans one root. One thread only.

    A root that holds no model, but versions or a model's file, is itself one model. In a root with models, a model's
    file that lies beside them is listed under its own name, with what is wrong.

    models      the models found, by name
    error       what is wrong with the root itself, "" for nothing
    read_once   the root has been read at least once
    """

    def __init__(
        self, root: Path, scanner: ModelScanner, *, name: str | None = None, allowed_link_targets: tuple[str, ...] = ()
    ) -> None:
        """`name`: of the model, if the root is itself one; None: the name of its directory."""
        self.root = root
        self._name = name
        self.models: dict[str, ModelOnDisk] = {}
        self.error = ""
        self.read_once = False
        self._scanner = scanner
        self._allowed = allowed_link_targets
        self._empty_check = _EmptyCheck()

    def scan(self) -> None:
        """Scans once. Never raises."""
        try:
            with FileRule(str(self.root), self._allowed).opened() as files:
                self._scan(files)
        except OSError as error:
            self._unreadable(f"{self.root} cannot be read: {error.strerror or error}")
        except Exception as error:  # also MemoryError: the other roots are scanned all the same
            self._unreadable(f"{self.root} cannot be read: {type(error).__name__}: {error}")

    def _scan(self, files: OpenRoot) -> None:
        first = not self.read_once
        with files.find(".") as place:
            listed = place.open_directory()
        try:
            names = subdirectories(listed)
            found = os.fstat(listed)
            strays = self._scanner.misplaced.model_files(listed)
            served = self._scanner.misplaced.served_files(listed) if strays else []
        finally:
            os.close(listed)
        self._scanner.directories.append(str(self.root))
        if not self._empty_check.plausible(found, empty=not names and not strays and bool(self.models)):
            self._unreadable(f"{self.root} is empty and not the directory that held the models: is it mounted?")
            return
        self.error = ""
        self.read_once = True
        models = {}
        for name in names:
            directory = self.root / name
            model = self._scanner.scan(name, directory, files, self.models.get(name), first=first, is_model=False)
            if model is not None:
                models[name] = model
        if all(model.nothing for model in (*models.values(), *self._others())):
            itself = self._itself(names, served, files, first)
            if itself is not None:
                self.models = {itself.name: itself}
                return
        for name in strays[:_MOST_STRAYS]:
            models.setdefault(name, ModelOnDisk(name, self.root / name, misplaced=(self._stray(name),)))
        self.models = self._scanner.with_absent(models, self.models, lambda name: (self.root, name, "absent"))

    def _itself(self, names: list[str], served: list[str], files: OpenRoot, first: bool) -> ModelOnDisk | None:
        """The root as one model, if it holds versions or a model's file and no models; else None."""
        name = self._name or self.root.name or "model"
        versions = numbered(names)
        if not versions and not served:
            return None
        before = self.models.get(name)
        flat = not versions
        if before is not None and (before.directory != self.root or any(v.flat != flat for v in before.versions)):
            before = None
        found = self._scanner.scan(name, self.root, files, before, first=first, is_model=True, flat=flat)
        # A directory whose name happens to be a number is no version while there is nothing in it.
        return found if found is not None and (flat or any(v.tree.files or v.error for v in found.versions)) else None

    def _others(self) -> list[ModelOnDisk]:
        """The models that the scan before has found, without the root itself."""
        return [model for model in self.models.values() if model.directory != self.root]

    def _stray(self, name: str) -> str:
        return readable(self._scanner.misplaced.in_root(self.root, name))

    def _unreadable(self, error: str) -> None:
        self.error = error
        for model in self.models.values():
            self._scanner.remember(model)


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
        try:
            with FileRule(str(self.directory), self._allowed).opened() as files:
                self._scan(files)
        except OSError as error:
            self._unreadable(f"{self.directory} cannot be read: {error.strerror or error}")
        except Exception as error:  # also MemoryError: the other models are scanned all the same
            self._unreadable(f"{self.directory} cannot be read: {type(error).__name__}: {error}")

    def _scan(self, files: OpenRoot) -> None:
        before = self.model if self.read_once else None
        with files.find(".") as place:
            listed = place.open_directory()
        try:
            empty = before is not None and bool(before.versions) and not version_directories(listed)
            plausible = self._empty_check.plausible(os.fstat(listed), empty=empty)
        finally:
            os.close(listed)
        if not plausible:
            self._unreadable(f"{self.directory} is empty and not the directory that held the versions: is it mounted?")
            return
        first = not self.read_once
        found = self._scanner.scan(self.model.name, self.directory, files, before, first=first, is_model=True)
        assert found is not None
        hint = root_hint(self.directory) if not found.versions else None
        self.model = replace(found, error=hint) if hint is not None else found
        self.read_once = True

    def _unreadable(self, reason: str) -> None:
        before = self.model if self.read_once else None
        self.model = self._scanner.unreadable(self.model.name, self.directory, before, reason)


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
