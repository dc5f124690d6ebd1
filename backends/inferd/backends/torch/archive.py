"""Finds out what a torch file is from its content, without importing torch and without unpickling anything.

    TORCHSCRIPT   a zip with a code/ folder, written by torch.jit.save
    EXPORTED      a zip with an exported program, written by torch.export.save
    AOTI          a zip with compiled code, written by torch._inductor.aoti_compile_and_package

Every other file that torch writes is a pickle of a Python object. To load a pickle runs code from the file, so pickles
are refused. What an exported program may hold is checked when it is opened (`exported_archive`).
"""

from __future__ import annotations

import enum
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from inferd.backends.api import IncompleteArtefact, LoadError
from inferd.backends.files import regular_file
from inferd.backends.torch.archive_names import check_directory, check_entries

_ZIP_START = b"PK\x03\x04"
# What zipfile raises for archives of other programs, of later formats, or of no program at all.
_UNREADABLE = (OSError, zipfile.BadZipFile, ValueError, KeyError, NotImplementedError, struct.error)
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
    the directory, at most 16 MiB. Raises LoadError for one that is larger."""
    found = _entries(path)
    return found if isinstance(found, str) else None


def classify(path: Path) -> Archive:
    """What the file holds. Raises IncompleteArtefact if it is missing or cut short, LoadError if it is a pickle, an
    archive with names that torch never writes, or anything else that cannot be served."""
    entries = _entries(path)
    if isinstance(entries, str):
        raise IncompleteArtefact(entries)
    if isinstance(entries, bytes):
        pickled = entries.startswith(_PICKLE_START)
        what = "a pickled Python object" if pickled else "no archive that torch.jit.save writes"
        raise LoadError(f"{path.name} is {what}, which is never loaded; {_HOW_TO_CONVERT}")
    check_entries(path.name, entries)
    names = {_inside(info.orig_filename).casefold() for info in entries}
    found = _format(names)
    if found is None:
        raise LoadError(
            f"{path.name} holds a pickled Python object (weights or a whole module), which is never loaded; "
            f"{_HOW_TO_CONVERT}"
        )
    return Archive(found, has_traced_inputs="traced_inputs.pkl" in names)


def _entries(path: Path) -> list[zipfile.ZipInfo] | bytes | str:
    """The directory of a zip archive; of a file that is none, its first bytes; or what is wrong with the file. Raises
    LoadError for a directory that is too large: it is read here, in the server's process."""
    try:
        with open(regular_file(path), "rb") as file:
            start = file.read(4)
            if start == _ZIP_START and zipfile.is_zipfile(file):
                check_directory(path.name, file)
                with zipfile.ZipFile(file) as archive:
                    return archive.infolist()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except _UNREADABLE as error:
        return f"{path.name} cannot be read as a zip archive: {error}"
    if not start:
        return f"{path.name} is empty"
    if start == _ZIP_START[: len(start)]:
        return f"{path.name} has no zip directory at its end: the file is cut short"
    return start


def _inside(name: str) -> str:
    """The name of an entry without the archive's top folder."""
    return name.partition("/")[2] or name


def _format(names: set[str]) -> ArchiveFormat | None:
    """`names`: in lower case, as torch's reader compares them."""
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
