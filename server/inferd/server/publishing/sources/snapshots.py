"""Directories that are no version: Hugging Face snapshots, and directories that hold one model's file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.sources.copies import ARTEFACTS
from inferd.server.publishing.sources.material import SourceOptions

_PLACE: Final = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{7,64})")
_USUAL: Final = ("onnx/model.onnx", "model.onnx", "model.pt2", "model.tflite")
_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5")
_MOST: Final = 1000


def is_snapshot(directory: Path) -> bool:
    """Whether a directory is a Hugging Face snapshot, or a copy of one."""
    return _PLACE.search(directory.absolute().as_posix()) is not None or (
        (directory / "config.json").is_file() and any((directory / name).exists() for name in (*_USUAL[:1], *_WEIGHTS))
    )


def snapshot_file(directory: Path, options: SourceOptions) -> tuple[Path, dict[str, Any]]:
    """The file to publish out of a snapshot, and where it comes from. Raises PublishError."""
    told: dict[str, Any] = {"kind": "huggingface", "uri": directory.name}
    place = _PLACE.search(directory.absolute().as_posix())
    if place is not None:
        told["uri"] = place[1].replace("--", "/")
        told["hf_revision"] = place[2]
    if options.file:
        told["file"] = options.file
        return named(directory, options.file), told
    for name in (*_USUAL, *(_WEIGHTS if options.module else ())):
        if (directory / name).is_file():
            told["file"] = name
            return directory / name, told
    there = ", ".join(sorted(p.relative_to(directory).as_posix() for p in _files(directory))[:12])
    raise PublishError(
        f"{directory} holds weights, and no model that can be served as it is ({there}): export it first (optimum-cli "
        "export onnx --model DIR OUT), name a file with --file, or give the model's code with --module FILE.py:NAME"
    )


def named(directory: Path, name: str) -> Path:
    """The file of this name below a directory. Raises PublishError."""
    path = directory / name
    if ".." in path.relative_to(directory).parts or not path.exists():
        near = ", ".join(sorted(p.relative_to(directory).as_posix() for p in _files(directory))[:12])
        raise PublishError(f"--file {name}: it is not in {directory}, which holds {near}")
    return path


def only_file(directory: Path) -> Path | None:
    """The model's file in a directory that holds exactly one, under a name that no server looks for; else None."""
    found = [p for p in directory.iterdir() if p.is_file() and p.suffix.lower() in ARTEFACTS]
    known = any(
        (directory / name).exists() for name in (*ARTEFACTS.values(), "saved_model.pb", "model.savedmodel", "model.py")
    )
    return found[0] if len(found) == 1 and not known else None


def _files(directory: Path) -> list[Path]:
    found = []
    for path in directory.rglob("*"):
        if path.is_file():
            found.append(path)
        if len(found) > _MOST:
            break
    return found
