"""The layout of a repository: which names are models and versions, which files hold a version back, and where links may
lead.

    <root>/<model>/<integer version>/<artefact>        [<root>/<model>/model.yaml] [<root>/<model>/config.pbtxt]

This module reads directory entries and link targets only. It opens no file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from inferd.server.errors import LayoutError

MODEL_FILE = "model.yaml"
TRITON_FILE = "config.pbtxt"
SETTINGS_FILES = (MODEL_FILE, TRITON_FILE)

PARTIAL_SUFFIXES = (".tmp", ".part", ".filepart", "~")
MAX_VERSION = 2**63 - 1  # the protocols carry versions as int64


class LinkRefused(LayoutError):
    """A symbolic link leads out of the repository."""


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


def subdirectories(directory: Path | str) -> list[str]:
    """The names of the visible directories in `directory`, sorted. Links to directories count. Raises OSError.

    A link without a target is left out: it is broken, or its target is still being published. A name that is not UTF-8
    is left out, because no client can send it.
    """
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
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


def version_directories(directory: Path | str) -> dict[int, list[str]]:
    """The version directories of a model: number → names. Several names for one number (`7`, `007`) are an error of
    that version, for the caller to report. Raises OSError."""
    versions: dict[int, list[str]] = {}
    for name in subdirectories(directory):
        number = version_number(name)
        if number is not None:
            versions.setdefault(number, []).append(name)
    return versions


def base_path_hint(root: Path | str, names: Iterable[str]) -> str | None:
    """An error text if a root is the directory of a single model (a TensorFlow Serving base path), else None. A root
    with at least one directory that looks like a model is a repository. `names`: the root's visible directories."""
    numbers = []
    for name in names:
        inside = Path(root) / name
        try:
            if version_directories(inside):
                return None
            if version_number(name) is not None and os.listdir(inside):
                numbers.append(name)
        except OSError:
            return None
    if not numbers:
        return None
    return (
        f"{root} holds version directories ({', '.join(numbers[:4])}) directly: it is one model's directory, "
        f"not a repository of models. Give its parent, {Path(root).parent}, or move it to <model>/{numbers[0]} below it"
    )


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


class LinkRule:
    """Where symbolic links may lead: into the root (with links resolved) or into the allowed targets.

    Every scan makes a new rule, because git-sync and ConfigMaps change what a root resolves to.
    """

    def __init__(self, root: Path | str, allowed: Iterable[Path | str] = ()) -> None:
        self.root = os.path.realpath(root)
        self._bases = tuple(base.rstrip(os.sep) + os.sep for base in (self.root, *map(os.path.realpath, allowed)))

    def check(self, path: Path | str) -> None:
        """Raises LinkRefused if `path`, with links resolved, lies outside; OSError if it cannot be resolved."""
        target = os.path.realpath(path)
        if not (target + os.sep).startswith(self._bases):
            raise LinkRefused(
                f"{path} links to {target}, outside the repository {self.root}; "
                f"add its directory to repository.allowed_link_targets to allow it"
            )
