"""The layout of a repository: which names are models and versions, and which files hold a version back.

    <root>/<model>/<integer version>/<artefact>        [<root>/<model>/model.yaml] [<root>/<model>/config.pbtxt]

This module reads directory entries only. It opens no file: `inferd.backends.files` does, and says where links may lead.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from inferd.backends.files import MOST_ENTRIES

MODEL_FILE = "model.yaml"
TRITON_FILE = "config.pbtxt"
SETTINGS_FILES = (MODEL_FILE, TRITON_FILE)
CODE_FILE = "model.py"
"""A model in Python code."""

PARTIAL_SUFFIXES = (".tmp", ".part", ".filepart", "~")
MOST_VERSIONS = 10_000  # of one model: every scan looks at the files of each
MAX_VERSION = 2**63 - 1  # the protocols carry versions as int64


def readable(text: str) -> str:
    """`text` as valid UTF-8 for messages: bytes of a file name that are not UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Whether a name is hidden. Hidden entries are never models or versions: `.git`, `.tmp-7`, a ConfigMap's
    `..data`."""
    return name.startswith(".")


def is_partial(name: str) -> bool:
    """Whether a copy program gives such a name to a file that is still being written."""
    return name.endswith(PARTIAL_SUFFIXES)


def version_number(name: str) -> int | None:
    """The version number of a directory name, None if the name is no version. `007` is version 7, as in TensorFlow
    Serving."""
    if not (name.isascii() and name.isdigit()):
        return None
    number = int(name) if len(name) <= 64 else MAX_VERSION + 1
    return number if number <= MAX_VERSION else None


def subdirectories(directory: Path | str | int) -> list[str]:
    """The names of the visible directories in `directory` (a path or a descriptor), sorted. Links to directories count.
    Raises OSError, EFBIG for more than MOST_ENTRIES names.

    A link without a target is left out: it is broken, or its target is still being published. A name that is not UTF-8
    is left out, because no client can send it.
    """
    found = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number == MOST_ENTRIES:
                raise OSError(errno.EFBIG, f"more than {MOST_ENTRIES} names")
            if is_hidden(entry.name) or is_partial(entry.name) or readable(entry.name) != entry.name:
                continue
            try:
                if entry.is_dir():
                    found.append(entry.name)
            except OSError:
                # The kind of the entry cannot be read. The scan of the entry itself will report the error.
                found.append(entry.name)
    found.sort()
    return found


def version_directories(directory: Path | str | int) -> dict[int, list[str]]:
    """The version directories of a model (a path or a descriptor): number → names. Several names for one number (`7`,
    `007`) are an error of that version, for the caller to report. Raises OSError."""
    return numbered(subdirectories(directory))


def numbered(names: Iterable[str]) -> dict[int, list[str]]:
    """Those of the names of directories that are versions: number → names. Raises OSError, EFBIG for more than
    MOST_VERSIONS versions."""
    versions: dict[int, list[str]] = {}
    for name in names:
        number = version_number(name)
        if number is not None:
            versions.setdefault(number, []).append(name)
    if len(versions) > MOST_VERSIONS:
        raise OSError(errno.EFBIG, f"more than {MOST_VERSIONS} versions: remove old ones")
    return versions


def root_hint(directory: Path | str) -> str | None:
    """An error text if the directory of a single model, in which no version was found, is a repository of models; else
    None."""
    try:
        models = [name for name in subdirectories(directory) if version_directories(Path(directory) / name)]
    except OSError:
        return None
    if not models:
        return None
    return (
        f"{directory} has no version but models ({', '.join(models[:4])}): it is a repository. Give it as "
        f"--model-repository (repository.roots), or name one model's directory, such as {Path(directory) / models[0]}"
    )
