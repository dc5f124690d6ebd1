"""What operators have asked for and the server keeps: overrides, which stand above the repository's own settings, and
the file in the state directory that keeps them over a restart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inferd.server.config.schema import Server
from inferd.server.lifecycle.state import PublishedOverride

Kind = Literal["unloaded", "pinned", "loaded", "label"]
_KINDS = ("unloaded", "pinned", "loaded", "label")
_FORMAT = 1
FILE = "overrides.json"


class OverridesError(Exception):
    """The overrides cannot be kept or read. The message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Override:
    """One override of one model. A value.

    kind       unloaded: `version` is not served, or nothing of the model when it is None
               loaded: `version` is served, or what the policy wants when it is None
               pinned: `version` is served and no other
               label: `label` points to `version`, or is removed when it is None
    by, at     who asked for it, and when (wall-clock seconds)
    """

    kind: Kind
    version: int | None
    by: str
    at: float
    label: str = ""

    def shown(self, *, persistent: bool) -> PublishedOverride:
        """The override as the status shows it. `persistent`: whether it outlives the process."""
        number = "" if self.version is None else str(self.version)
        value = f"{self.label}={number}" if self.kind == "label" else number
        return PublishedOverride(self.kind, value, self.by, self.at, persistent)


@dataclass(frozen=True, slots=True)
class ModelOverrides:
    """All overrides of one model. A value: every change makes a new one."""

    items: tuple[Override, ...] = ()

    def get(self, kind: Kind, version: int | None = None) -> Override | None:
        """The override of this kind for this version (None: for the whole model), None when there is none."""
        return next((item for item in self.items if item.kind == kind and item.version == version), None)

    @property
    def pin(self) -> int | None:
        """The pinned version, None when there is none."""
        return next((override.version for override in self.items if override.kind == "pinned"), None)

    def versions(self, kind: Kind) -> frozenset[int]:
        """The single versions that have an override of this kind."""
        return frozenset(item.version for item in self.items if item.kind == kind and item.version is not None)

    @property
    def labels(self) -> dict[str, int | None]:
        """The labels that are set (to a version) and those that are removed (None)."""
        return {override.label: override.version for override in self.items if override.kind == "label"}

    def plus(self, override: Override) -> ModelOverrides:
        """These overrides and one more, which replaces one of the same kind and target."""
        if override.kind == "label":
            kept = self.only(lambda item: not (item.kind == "label" and item.label == override.label))
        elif override.kind == "pinned":
            kept = self.without("pinned")
        else:
            kept = self.minus(override.kind, override.version)
        return ModelOverrides((*kept.items, override))

    def minus(self, kind: Kind, version: int | None) -> ModelOverrides:
        """These overrides without the one of this kind for this version (None: for the whole model)."""
        return self.only(lambda item: not (item.kind == kind and item.version == version))

    def without(self, *kinds: Kind) -> ModelOverrides:
        """These overrides without those of these kinds."""
        return self.only(lambda item: item.kind not in kinds)

    def only(self, keep: Callable[[Override], bool]) -> ModelOverrides:
        """The overrides for which `keep` is true."""
        return ModelOverrides(tuple(override for override in self.items if keep(override)))


class Overrides:
    """The overrides of all models. Not thread-safe: for the manager's thread, or the supervisor's.

    With a state directory every change is on disk before it counts. Without one overrides end with the process.
    """

    def __init__(self, state_dir: Path | None) -> None:
        """Reads what the state directory holds; None: there is none. Raises OverridesError."""
        self._file = None if state_dir is None else state_dir / FILE
        self._overrides: dict[str, ModelOverrides] = {}
        if self._file is not None:
            _probe(self._file.parent)
            self._overrides = _read(self._file)

    @classmethod
    def of_config(cls, config: Server) -> Overrides:
        """Those of server.state_dir. Raises OverridesError."""
        return cls(Path(config.state_dir) if config.state_dir is not None else None)

    @property
    def persistent(self) -> bool:
        """Whether overrides outlive the process."""
        return self._file is not None

    def of(self, model: str) -> ModelOverrides:
        """The overrides of a model; empty for an unknown one."""
        return self._overrides.get(model, ModelOverrides())

    @property
    def all(self) -> Mapping[str, ModelOverrides]:
        """The overrides by model. A copy."""
        return dict(self._overrides)

    def adopt(self, model: str, overrides: ModelOverrides) -> None:
        """Takes over overrides that the supervisor of a worker group keeps; writes nothing."""
        self._overrides = {**self._overrides, model: overrides}
        if not overrides.items:
            del self._overrides[model]

    def change(self, model: str, overrides: ModelOverrides) -> None:
        """Replaces the overrides of a model. Raises OverridesError, and then nothing has changed."""
        if overrides == self.of(model):
            return
        changed = {**self._overrides, model: overrides}
        if not overrides.items:
            del changed[model]
        if self._file is not None:
            _write(self._file, changed)
        self._overrides = changed


def _write(file: Path, overrides: Mapping[str, ModelOverrides]) -> None:
    document = {
        "format": _FORMAT,
        "models": {name: [asdict(override) for override in entry.items] for name, entry in sorted(overrides.items())},
    }
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(document, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
        temporary = None
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename itself must survive a power failure
        finally:
            os.close(directory)
    except OSError as error:
        raise OverridesError(
            f"the wish cannot be kept in {file}: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        if temporary is not None:
            try:
                os.unlink(temporary)
            except OSError:
                pass


def _probe(directory: Path) -> None:
    """Finds out that nothing can be kept at start, not when an operator first asks for something."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise OverridesError(
            f"server.state_dir: expected a directory that can be written to, got {directory}: {error.strerror or error}"
        ) from error


def _read(file: Path) -> dict[str, ModelOverrides]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OverridesError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OverridesError(f"{file} holds operators' wishes and is damaged ({error}): repair or remove it") from None
    try:
        if document["format"] != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}, got {document['format']!r}")
        return {name: ModelOverrides(tuple(map(_override, entries))) for name, entries in document["models"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OverridesError(
            f"{file} holds operators' wishes and is damaged ({type(error).__name__}: {error}): repair or remove it"
        ) from None


def _override(entry: Mapping[str, Any]) -> Override:
    kind, version = entry["kind"], entry["version"]
    if kind not in _KINDS or not (version is None or (isinstance(version, int) and not isinstance(version, bool))):
        raise ValueError(f"expected a wish, got {dict(entry)!r}")
    return Override(kind, version, str(entry["by"]), float(entry["at"]), str(entry.get("label", "")))
