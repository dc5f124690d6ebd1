"""Finds out what a torch file is from its content, without importing torch and without unpickling anything.

    TORCHSCRIPT   a zip with a code/ folder, written by torch.jit.save
    EXPORTED      a zip with an exported program, written by torch.export.save
    AOTI          a zip with compiled code, written by torch._inductor.aoti_compile_and_package

Every other file that torch writes is a pickle of a Python object. To load a pickle runs code from the file, so pickles
are refused.
"""

from __future__ import annotations

import enum
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from inferd.backends.api import IncompleteArtefact, LoadError

_ZIP_START = b"PK\x03\x04"
_PICKLE_START = b"\x80"
_HOW_TO_CONVERT = (
    "write it with torch.jit.save(torch.jit.script(model), 'model.pt') "
    "or torch.export.save(torch.export.export(model, example_inputs), 'model.pt2')"
)


class ArchiveFormat(enum.Enum):
    """What an archive holds. The values are used in messages."""

    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export program"
    AOTI = "AOTInductor package"


@dataclass(frozen=True, slots=True)
class Archive:
    """What a file is.

    has_traced_inputs   the archive holds the example inputs of a traced module
    """

    format: ArchiveFormat
    has_traced_inputs: bool = False


def missing(path: Path) -> str | None:
    """None if the zip directory at the end of the file can be read, or if the file is no zip; else what is wrong. Reads
    a few kilobytes."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == _ZIP_START and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.infolist()
            return None
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, zipfile.BadZipFile) as error:
        return f"{path.name} cannot be read as a zip archive: {error}"
    if not start:
        return f"{path.name} is empty"
    if start == _ZIP_START[: len(start)]:
        return f"{path.name} has no zip directory at its end: the file is cut short"
    return None


def classify(path: Path) -> Archive:
    """What the file holds. Raises IncompleteArtefact if it is missing or cut short, LoadError if it is a pickle or
    anything else that cannot be served."""
    lacking = missing(path)
    if lacking is not None:
        raise IncompleteArtefact(lacking)
    with path.open("rb") as file:
        start = file.read(4)
    if start != _ZIP_START:
        what = "a pickled Python object" if start.startswith(_PICKLE_START) else "no archive that torch.jit.save writes"
        raise LoadError(f"{path.name} is {what}, which is never loaded; {_HOW_TO_CONVERT}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = _format({_inside(name) for name in names})
            if found is ArchiveFormat.EXPORTED:
                _refuse_pickles(path, archive)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}") from None
    if found is None:
        raise LoadError(
            f"{path.name} holds a pickled Python object (weights or a whole module), which is never loaded; "
            f"{_HOW_TO_CONVERT}"
        )
    return Archive(found, has_traced_inputs=any(_inside(name) == "traced_inputs.pkl" for name in names))


def _inside(name: str) -> str:
    """The name of an entry without the archive's top folder."""
    return name.partition("/")[2] or name


def _format(names: set[str]) -> ArchiveFormat | None:
    if any(name.startswith("data/aotinductor/") for name in names):
        return ArchiveFormat.AOTI
    # The second name is in the archives that torch wrote before 2.8.
    if any(name.startswith("models/") and name.endswith(".json") for name in names) or any(
        name.endswith("serialized_exported_program.json") for name in names
    ):
        return ArchiveFormat.EXPORTED
    if any(name.startswith("code/") for name in names):
        return ArchiveFormat.TORCHSCRIPT
    return None


def _refuse_pickles(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises LoadError for entries that make torch.export.load unpickle something. Programs of plain tensors have no
    such entries."""
    for name in archive.namelist():
        entry = _inside(name)
        if entry.startswith("data/constants/opaque_obj"):
            raise LoadError(f"{path.name} holds a pickled constant ({entry}), which is never loaded")
        if entry.endswith(("_weights_config.json", "_constants_config.json")):
            config = json.loads(archive.read(name)).get("config", {})
            pickled = sorted(key for key, value in config.items() if value.get("use_pickle"))
            if pickled:
                raise LoadError(
                    f"{path.name} holds pickled tensors ({', '.join(pickled[:4])}), which are never loaded; "
                    "export the model with plain dense tensors"
                )
