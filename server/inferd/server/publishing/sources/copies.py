"""Sources that are servable as they are: their files are copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from inferd.backends.api import IncompleteArtefact, LoadError
from inferd.backends.files import FileRule
from inferd.backends.registry import Registry
from inferd.server.errors import LayoutError
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import Provenance, as_origin
from inferd.server.repository.provenance import read_provenance
from inferd.server.repository.tree import read_tree

ARTEFACTS: Final = {".onnx": "model.onnx", ".pt": "model.pt", ".pt2": "model.pt2", ".tflite": "model.tflite"}
"""The name that a file of each format has in a version's directory."""


def copy_file(path: Path, version: Path) -> None:
    """Copies one file under the name that servers look for, with the files beside it that hold its weights. Raises
    PublishError, OSError."""
    name = ARTEFACTS[path.suffix.lower()]
    for extra in _weights(path):
        target = version / extra.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(extra, target)
    shutil.copy2(path, version / name)


def copy_directory(path: Path, version: Path, provenance: Provenance) -> Provenance:
    """Copies the files of a version's directory; hidden directories stay where they are. Returns the provenance: that
    of the directory, if it has one. Raises PublishError, OSError."""
    check_directory(path)
    shutil.copytree(path, version, dirs_exist_ok=True, ignore=_hidden_directories)
    before = read_provenance(path, FileRule(os.path.abspath(path)))
    if not before:
        return provenance
    made = as_origin(before)
    made.more["copied_from"] = str(path)
    made.source = made.source or provenance.source
    return made


def check_directory(path: Path) -> None:
    """Raises PublishError for a directory that no server would serve."""
    try:
        if not any(path.iterdir()):
            raise PublishError(f"{path} is empty; expected the files of one version")
        held = read_tree(path).held
    except OSError as error:
        raise PublishError(f"{path} cannot be read: {error.strerror or error}") from None
    except LayoutError as error:
        raise PublishError(str(error)) from None
    if held:
        raise PublishError(f"{path}: a server would wait for ever, {held}")


def _weights(path: Path) -> list[Path]:
    """The files beside an ONNX model that hold its weights."""
    if path.suffix.lower() != ".onnx":
        return []
    try:
        backend = Registry().get("onnx")
        missing = backend.complete(path)
        if missing:
            raise PublishError(f"{path}: {missing}")
        return list(backend.files(path))
    except IncompleteArtefact as error:
        raise PublishError(f"{path}: {error}") from None
    except LoadError:
        return []  # there is no such backend here, or the file is no such model: the check tells


def _hidden_directories(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith(".") and os.path.isdir(os.path.join(folder, name))}
