"""Scans one model's directory: its settings, its versions, and whether each version may be loaded.

A version that is no longer found counts as gone only after the settle time, because a directory that is replaced by two
renames is missing for a moment. A directory that cannot be read keeps the result of the scan before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from inferd.backends.files import FileRefused, OpenRoot
from inferd.server.errors import LayoutError
from inferd.server.observability.events import event, get
from inferd.server.repository.disk import ModelOnDisk, VersionOnDisk
from inferd.server.repository.layout import numbered, readable, subdirectories
from inferd.server.repository.misplaced import Misplaced
from inferd.server.repository.model_settings import SettingsReader
from inferd.server.repository.settle import Settle
from inferd.server.repository.tree import Tree, tree_of

log = get("lifecycle")

_SHOWN = 8  # names in one message
_MOST_REPORTED = 100  # unforeseen errors that are logged
_LONGEST = 500  # characters of an unforeseen error

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")


class ModelScanner:
    """Scans model directories. One thread only. Whatever goes wrong with one model is that model's error.

    keys          the keys that a scan has used with `Settle`
    directories   what a scan has listed, as absolute paths
    misplaced     looks for what was probably meant as a model or version and is none

    RepositoryScanner empties the first two before each scan.
    """

    def __init__(
        self, settings: SettingsReader, settle: Settle, misplaced: Misplaced, ready_file: str | None = None
    ) -> None:
        self.keys: set[Hashable] = set()
        self.directories: list[str] = []
        self._reported: set[str] = set()  # unforeseen errors that were logged
        self._settings = settings
        self._settle = settle
        self.misplaced = misplaced
        self._ready_file = ready_file

    def begin(self) -> None:
        """Starts a scan of everything."""
        self.keys = set()
        self.directories = []

    def scan(
        self,
        name: str,
        directory: Path,
        files: OpenRoot,
        before: ModelOnDisk | None,
        *,
        first: bool,
        is_model: bool,
        flat: bool = False,
    ) -> ModelOnDisk | None:
        """Scans `directory` once, which lies below the root of `files`. Returns None if it is no model and nothing
        shows that it was meant to be one; with `is_model`, that is an error of the model.

        `before` is the result of the scan before. `first`: old files have settled at once (see Settle). `flat`: the
        directory itself is version 1. Never raises.
        """
        try:
            return self._scan(name, directory, files, before, first, is_model, flat)
        except (LayoutError, FileRefused) as error:
            return self.unreadable(name, directory, before, str(error))
        except OSError as error:
            return self.unreadable(name, directory, before, f"{directory} cannot be read: {error.strerror or error}")
        except Exception as error:  # also MemoryError and RecursionError: the other models are scanned all the same
            return self.unreadable(name, directory, before, f"{directory} cannot be read: {self._unforeseen(error)}")

    def _scan(
        self,
        name: str,
        directory: Path,
        files: OpenRoot,
        before: ModelOnDisk | None,
        first: bool,
        is_model: bool,
        flat: bool,
    ) -> ModelOnDisk | None:
        with files.find(directory) as found:
            listed = found.open_directory()
        try:
            inside = subdirectories(listed)
            numbers = {1: ["."]} if flat else numbered(inside)
            present = self._settings.present(listed)
            stray: tuple[str, ...] = ()
            if not numbers:
                found_there = self.misplaced.in_directory(directory, files, listed)
                stray = (found_there,) if found_there else ()
                if (before is None or before.nothing) and not present and not is_model:
                    return ModelOnDisk(name, directory, misplaced=(readable(stray[0]),)) if stray else None
            elif not flat:
                stray = self.misplaced.versions(directory, files, listed, inside)
            self.directories.append(str(directory))
            self.keys.add((directory, "settings"))
            settings = self._settings.read(name, directory, files, listed, first=first)
            versions = {
                number: self._version(directory, number, names, files, listed, first, flat)
                for number, names in numbers.items()
            }
        finally:
            os.close(listed)
        if before is not None and before.directory == directory:
            versions = self.with_absent(
                versions, {version.number: version for version in before.versions}, lambda n: (directory, n, "absent")
            )
        problem = settings.error
        if not versions and not problem:
            expected = f"expected a directory named by an integer, such as {directory / '1'}"
            problem = stray[0] if stray else f"{directory} has no version: {expected}"
        ordered = tuple(versions[number] for number in sorted(versions, reverse=True))
        padded = [names[0] for number, names in numbers.items() if names[0] != str(number) and not flat]
        return ModelOnDisk(
            name,
            directory,
            settings.config,
            ordered,
            readable(problem),
            settings.held,
            (*settings.notes, *(f"the directory {shown} is version {int(shown)}" for shown in padded[:_SHOWN])),
            misplaced=tuple(map(readable, stray)) if versions else (),
        )

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

    def _version(
        self, model: Path, number: int, names: list[str], files: OpenRoot, listed: int, first: bool, flat: bool
    ) -> VersionOnDisk:
        path = model / names[0]
        rule = files.rule
        key = (model, number)
        self.keys.add(key)
        if len(names) > 1:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            return VersionOnDisk(
                number,
                path,
                error=f"version {number} has {len(names)} directories: {', '.join(names[:_SHOWN])}{more}",
                files=rule,
            )
        try:
            with files.find(names[0], listed, path) as found:
                tree = tree_of(files, found)
        except (LayoutError, FileRefused) as error:
            return VersionOnDisk(number, path, error=readable(str(error)), files=rule)
        except OSError as error:
            reason = f"{path} cannot be read: {error.strerror or error}"
            return VersionOnDisk(number, path, error=readable(reason), files=rule)
        except Exception as error:
            reason = f"{path} cannot be read: {self._unforeseen(error)}"
            return VersionOnDisk(number, path, error=readable(reason), files=rule)
        self.directories += tree.directories
        settled = self._settle.observe(key, tree, newest_change=tree.newest_ctime if first else None)
        held = self._held(tree)
        settling = not held and not settled
        if settling:
            held = "its files are still changing, or too new to be sure that they are not"
        return VersionOnDisk(number, path, tree, held=held, settling=settling, files=rule, flat=flat)

    def _unforeseen(self, error: Exception) -> str:
        """The error as text. It is logged once, not with every scan."""
        text = f"{type(error).__name__}: {error}"[:_LONGEST]
        if text not in self._reported and len(self._reported) < _MOST_REPORTED:
            self._reported.add(text)
            event(log, logging.ERROR, "a model could not be scanned in an unforeseen way", error=error)
        return text

    def _held(self, tree: Tree) -> str:
        if tree.held:
            return readable(tree.held)
        if self._ready_file and not any(file.path == self._ready_file for file in tree.files):
            return f"{self._ready_file} is not there yet (repository.ready_file)"
        return ""
