"""Operators' wishes, which stand above the repository's own settings, and the file that keeps them over a restart.

OverridesError     the file in the state directory cannot be read or written: names it and says why
"""

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
    """The wishes cannot be kept or read."""


@dataclass(frozen=True, slots=True)
class Override:
    """One wish for one model.

    unloaded, loaded   `version`, or all of the model when it is None
    pinned             `version` is served and no other
    label              `label` points to `version`, or is removed when it is None
    `by` and `at` (wall-clock seconds) say whose wish it is and since when.
    """

    kind: Kind
    version: int | None
    by: str
    at: float
    label: str = ""

    def shown(self, *, persistent: bool) -> PublishedOverride:
        """The wish as the status shows it."""
        number = "" if self.version is None else str(self.version)
        value = f"{self.label}={number}" if self.kind == "label" else number
        return PublishedOverride(self.kind, value, self.by, self.at, persistent)


@dataclass(frozen=True, slots=True)
class ModelOverrides:
    """All wishes for one model. A value: every change makes a new one."""

    items: tuple[Override, ...] = ()

    def get(self, kind: Kind, version: int | None = None) -> Override | None:
        """The wish of this kind for this version (None: for the whole model)."""
        return next((wish for wish in self.items if wish.kind == kind and wish.version == version), None)

    @property
    def pin(self) -> int | None:
        """The pinned version."""
        return next((wish.version for wish in self.items if wish.kind == "pinned"), None)

    def versions(self, kind: Kind) -> frozenset[int]:
        """Single versions that have a wish of this kind."""
        return frozenset(wish.version for wish in self.items if wish.kind == kind and wish.version is not None)

    @property
    def labels(self) -> dict[str, int | None]:
        """Labels set (to a version) and removed (None)."""
        return {wish.label: wish.version for wish in self.items if wish.kind == "label"}

    def plus(self, wish: Override) -> ModelOverrides:
        """With this wish, which replaces one of the same kind and target."""
        if wish.kind == "label":
            kept = [other for other in self.items if not (other.kind == "label" and other.label == wish.label)]
        elif wish.kind == "pinned":
            kept = [other for other in self.items if other.kind != "pinned"]
        else:
            kept = [other for other in self.items if not (other.kind == wish.kind and other.version == wish.version)]
        return ModelOverrides((*kept, wish))

    def only(self, keep: Callable[[Override], bool]) -> ModelOverrides:
        """Those wishes for which `keep` is true."""
        return ModelOverrides(tuple(wish for wish in self.items if keep(wish)))


class Overrides:
    """The wishes for all models. The manager's thread only.

    With a state directory every change is on disk before it counts; without one wishes end with the process.
    """

    def __init__(self, state_dir: Path | None) -> None:
        self._file = None if state_dir is None else state_dir / FILE
        self._wishes: dict[str, ModelOverrides] = {}
        if self._file is not None:
            _probe(self._file.parent)
            self._wishes = _read(self._file)

    @classmethod
    def of_config(cls, config: Server) -> Overrides:
        """Those of server.state_dir. Raises OverridesError."""
        return cls(Path(config.state_dir) if config.state_dir is not None else None)

    @property
    def persistent(self) -> bool:
        """Whether wishes outlive the process."""
        return self._file is not None

    def of(self, model: str) -> ModelOverrides:
        """The wishes for a model; without any for an unknown one."""
        return self._wishes.get(model, ModelOverrides())

    @property
    def all(self) -> Mapping[str, ModelOverrides]:
        """By model. A copy."""
        return dict(self._wishes)

    def adopt(self, model: str, wishes: ModelOverrides) -> None:
        """Takes over wishes that somebody else keeps."""
        self._wishes = {**self._wishes, model: wishes}
        if not wishes.items:
            del self._wishes[model]

    def change(self, model: str, wishes: ModelOverrides) -> None:
        """Replaces the wishes for a model. Raises OverridesError, and then nothing has changed."""
        if wishes == self.of(model):
            return
        changed = {**self._wishes, model: wishes}
        if not wishes.items:
            del changed[model]
        if self._file is not None:
            _write(self._file, changed)
        self._wishes = changed


def _write(file: Path, wishes: Mapping[str, ModelOverrides]) -> None:
    document = {
        "format": _FORMAT,
        "models": {name: [asdict(wish) for wish in entry.items] for name, entry in sorted(wishes.items())},
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
            os.fsync(directory)  # the rename itself must survive a power cut
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
    """Finds out at start, not at an operator's first wish, that nothing can be kept."""
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
