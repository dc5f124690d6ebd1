"""TorchServe's archives (.mar): the model that they hold. Their handlers are no part of it."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from inferd.server.publishing.errors import PublishError
from inferd.server.repository.provenance import shown

_MOST_BYTES: Final = 64 * 2**30
_MOST_RATIO: Final = 200  # of unpacked to packed bytes
_MOST_MEMBERS: Final = 10_000
_BUILT_IN: Final = frozenset(
    {"image_classifier", "image_segmenter", "object_detector", "text_classifier", "base_handler", ""}
)

TEMPLATE: Final = '''"""What the handler of the TorchServe archive did around the model: fill in `before` and `after`.

Arguments and results are named numpy arrays, one row for each row of the request. handler.py beside this file is the
handler of the archive.
"""

import numpy as np


def before(data):  # from `preprocess`: what a caller sends, for example the bytes of a picture
    return {"INPUT": np.stack([np.frombuffer(each, np.uint8) for each in data])}


def after(OUTPUT):  # from `postprocess`: what a caller gets
    return {"label": np.argmax(OUTPUT, axis=1)}
'''


@dataclass(frozen=True, slots=True)
class TorchServeArchive:
    """model     the file with the program or the weights
    code      the file with the model's code, None if there is none
    class_name  of the model in `code`
    handler   the archive's own handler, None for a built-in one
    """

    model: Path
    code: Path | None
    class_name: str
    handler: Path | None
    name: str
    version: str


def unpack(path: Path, target: Path) -> TorchServeArchive:
    """Unpacks an archive into `target`, an empty directory. Raises PublishError, OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
            for member in archive.infolist():
                if member.is_dir():
                    continue
                place = target / member.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(place, "xb") as copy:  # never as a link
                    shutil.copyfileobj(source, copy, 1 << 20)
        manifest = json.loads((target / "MAR-INF" / "MANIFEST.json").read_bytes()[: 1 << 20])
        described = manifest["model"]
        if not isinstance(described, dict):
            raise KeyError("model")
    except (
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
        FileNotFoundError,
        NotImplementedError,
    ):
        raise PublishError(f"{path} is no TorchServe archive: expected a zip file with MAR-INF/MANIFEST.json") from None
    except RuntimeError as error:  # encrypted
        raise PublishError(f"{path} cannot be unpacked: {error}") from None
    code = _member(target, described, "modelFile", path)
    handler = str(described.get("handler") or "").partition(":")[0]
    model = _member(target, described, "serializedFile", path)
    if model is None:
        raise PublishError(f"{path} names no serializedFile: it holds no model of its own")
    return TorchServeArchive(
        model,
        code,
        _class_name(code) if code is not None else "",
        None if handler in _BUILT_IN else _handler(target, handler),
        shown(described.get("modelName")),
        shown(described.get("modelVersion")),
    )


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > _MOST_MEMBERS or size > _MOST_BYTES or size > (1 << 20) + _MOST_RATIO * packed:
        raise PublishError(f"{path} would unpack to {len(members)} files and {size} bytes, which no model needs")
    for member in members:
        parts = PurePosixPath(member.filename)
        if parts.is_absolute() or ".." in parts.parts or "\\" in member.filename or "\0" in member.filename:
            raise PublishError(f"{path} holds {shown(member.filename)!r}, which would leave its directory")


def _member(target: Path, described: dict[str, Any], key: str, archive: Path) -> Path | None:
    name = described.get(key)
    if not isinstance(name, str) or not name:
        return None
    path = target / PurePosixPath(name).name
    if not path.is_file():
        raise PublishError(f"{archive} names {shown(name)} as its {key}, which is not in it")
    return path


def _handler(target: Path, name: str) -> Path | None:
    path = target / PurePosixPath(name if name.endswith(".py") else f"{name}.py").name
    return path if path.is_file() else None


def _class_name(code: Path) -> str:
    """The only class of the model's file, as TorchServe takes it: read, not run."""
    import ast

    try:
        tree = ast.parse(code.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return names[-1] if names else ""
