"""The models and versions that a scan has found on disk. Values only: every scan makes new ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from inferd.backends.files import FileRule
from inferd.server.config.schema import ModelConfig
from inferd.server.repository.tree import Tree


@dataclass(frozen=True, slots=True)
class VersionOnDisk:
    """One version directory.

    held       why the version may not be loaded yet ("" if it may); a later scan may find it complete
    settling   the only reason is that its files have not been unchanged for the settle time yet
    error      why the version cannot be loaded, "" for none
    flat       its files lie directly in the model's directory, without a version directory
    files      where its files may be read; None: below the model's directory
    """

    number: int
    path: Path
    tree: Tree = field(default_factory=Tree)
    held: str = ""
    error: str = ""
    settling: bool = False
    files: FileRule | None = None
    flat: bool = False

    @property
    def rule(self) -> FileRule:
        """The rule by which every file of the version and of its model is read."""
        return self.files or FileRule(os.path.abspath(self.model_directory))

    @property
    def model_directory(self) -> Path:
        """The model's directory."""
        return self.path if self.flat else self.path.parent

    @property
    def ready(self) -> bool:
        """Whether the version may be loaded: its files are complete and have been unchanged for the settle time."""
        return not self.held and not self.error


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """One model directory.

    config      the model's settings; None if they cannot be read (see `error`) or are still being written (see `held`).
                The served versions then stay as they are.
    versions    in descending order
    notes       settings that are not honoured
    misplaced   what else was probably meant as a version and is none, in words
    ambiguous   several directories have this model's name
    """

    name: str
    directory: Path
    config: ModelConfig | None = None
    versions: tuple[VersionOnDisk, ...] = ()
    error: str = ""
    held: str = ""
    notes: tuple[str, ...] = ()
    ambiguous: bool = False
    misplaced: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the directory is no model, but only looks as if it was meant to be one."""
        return self.config is None and not (self.held or self.versions or self.error)

    @property
    def problem(self) -> str:
        """What is wrong with the model as a whole, "" for nothing. Versions may be served all the same."""
        return self.error or "; ".join(self.misplaced)

    def version(self, number: int) -> VersionOnDisk | None:
        """The version with this number."""
        return next((version for version in self.versions if version.number == number), None)


@dataclass(frozen=True, slots=True)
class Listing:
    """The full content of the repository at one moment. A model that is not listed is gone.

    models      by name
    directories what was listed, as absolute paths: a change in one of these changes the listing
    errors      roots that could not be read (their models are listed as they were before), and directories of
                configured models that never could be read
    complete    every root and every configured model has been read at least once
    sequence    number of the scan; see SourceLike.request_scan
    """

    models: dict[str, ModelOnDisk] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    complete: bool = True
    sequence: int = 0
    directories: tuple[str, ...] = ()
