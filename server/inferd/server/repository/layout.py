"""What a repository's directories mean: which names are models and versions, which files hold a version back, where
links may lead.

    <root>/<model>/<integer version>/<artefact>        [<root>/<model>/model.yaml] [<root>/<model>/config.pbtxt]

Everything here looks at names and link targets only; nothing is opened.
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
MAX_VERSION = 2**63 - 1  # versions travel as int64


class LinkRefused(LayoutError):
    """A symbolic link leads out of the repository."""


def readable(text: str) -> str:
    """`text` as a message may carry it: file names that are not UTF-8 are written with escapes."""
    return text.encode(errors="backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Names that are never models or versions: `.git`, `.tmp-7`, a ConfigMap's `..data`."""
    return name.startswith(".")


def is_partial(name: str) -> bool:
    """Names that copy programs give to files that are still being written."""
    return name.endswith(PARTIAL_SUFFIXES)


def version_number(name: str) -> int | None:
    """The version that a directory name stands for, None when it is no version. `007` is 7, as in TensorFlow
    Serving."""
    if not (name.isascii() and name.isdigit()):
        return None
    number = int(name) if len(name) <= 64 else MAX_VERSION + 1
    return number if number <= MAX_VERSION else None


def subdirectories(directory: Path | str) -> list[str]:
    """Names of the visible directories in `directory`, sorted; links to directories count. Raises OSError.

    A link that leads nowhere is a publication in progress or a broken one; either way it is nothing yet. A name that is
    not UTF-8 cannot be asked for by any client.
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
                # The kind of the entry is unknown, which a scan of the entry itself will report.
                found.append(entry.name)
    found.sort()
    return found


def version_directories(directory: Path | str) -> dict[int, list[str]]:
    """The version directories of a model: number to names. More than one name for a number is an error of that version.
    Raises OSError."""
    versions: dict[int, list[str]] = {}
    for name in subdirectories(directory):
        number = version_number(name)
        if number is not None:
            versions.setdefault(number, []).append(name)
    return versions


def base_path_hint(root: Path | str, names: Iterable[str]) -> str | None:
    """What to say when a root is one model's own directory (a TensorFlow Serving base path), None when it is a
    repository: one directory in it that looks like a model is enough.

    `names`: the root's visible directories.
    """
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
    """What to say when what should be one model's directory without versions is a repository of models, None when it is
    not."""
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
    """Decides where symbolic links may lead: into the root, as it resolves now, or into the allowed targets.

    Made afresh for each scan, because git-sync and ConfigMaps swap what a root resolves to.
    """

    def __init__(self, root: Path | str, allowed: Iterable[Path | str] = ()) -> None:
        self.root = os.path.realpath(root)
        self._bases = tuple(base.rstrip(os.sep) + os.sep for base in (self.root, *map(os.path.realpath, allowed)))

    def check(self, path: Path | str) -> None:
        """Raises LinkRefused when `path`, links resolved, lies outside; OSError when it cannot be resolved."""
        target = os.path.realpath(path)
        if not (target + os.sep).startswith(self._bases):
            raise LinkRefused(
                f"{path} links to {target}, outside the repository {self.root}; "
                f"add its directory to repository.allowed_link_targets to allow it"
            )
