"""What the source saw on disk: values only, each scan makes new ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from inferd.server.config.schema import ModelConfig
from inferd.server.repository.tree import Tree


@dataclass(frozen=True, slots=True)
class VersionOnDisk:
    """One version directory.

    `held`: why it is not yet a candidate, which may heal by itself; `settling`: it will, in less than the settle time,
    if nothing changes any more. `error`: why it cannot be a candidate.
    """

    number: int
    path: Path
    tree: Tree = field(default_factory=Tree)
    held: str = ""
    error: str = ""
    settling: bool = False

    @property
    def ready(self) -> bool:
        """Whether the version may be loaded: complete and unchanged for long enough, as far as the disk tells."""
        return not self.held and not self.error


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """One model directory, versions descending.

    `config` is None while its settings cannot be read: then `error` says why (or `held`, while they are being written)
    and what is served stays as it is. `notes`: settings that are not honoured. `ambiguous`: more than one directory
    claims to be this model.
    """

    name: str
    directory: Path
    config: ModelConfig | None = None
    versions: tuple[VersionOnDisk, ...] = ()
    error: str = ""
    held: str = ""
    notes: tuple[str, ...] = ()
    ambiguous: bool = False

    def version(self, number: int) -> VersionOnDisk | None:
        """The version with this number."""
        return next((version for version in self.versions if version.number == number), None)


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that the repository holds at one moment, models by name. Omission means: confirmed gone.

    `errors`: roots that could not be read, whose models are still listed as they were, and named models' directories
    that never could. `complete`: every root and every named model has been read at least once. `sequence` counts the
    scans: a listing with a number at or above that of a request was made after it.
    """

    models: dict[str, ModelOnDisk] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    complete: bool = True
    sequence: int = 0
