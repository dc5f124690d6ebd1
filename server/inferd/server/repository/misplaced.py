"""Files and directories that look as if they were meant to be served and are not, in words for operators.

    <root>/model.onnx             a model without a directory of its own
    <root>/m/model.onnx           a model without a version
    <root>/m/v2/model.onnx        a version that is not named by an integer (v2, 1.0, .1, one that is too large)
    <root>/group/m/1/model.onnx   a repository within the repository

Only names are looked at, and of directories that hold no version. No file is opened.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from inferd.backends.files import MOST_ENTRIES, OpenRoot
from inferd.backends.foreign_formats import is_model_file
from inferd.server.repository.layout import (
    CODE_FILE,
    MAX_VERSION,
    SETTINGS_FILES,
    is_partial,
    readable,
    version_directories,
    version_number,
)

Artefacts = Callable[[], Iterable[str]]
"""Gives the names of the files and directories that backends serve, such as "model.onnx"."""

_LOOKED_AT = 20  # directories within one directory
_SHOWN = 4  # names in one message
# v2, V2, version-3, 1.0, 2.0.1-rc1, 1_2; and with a dot before it
_LIKE_A_VERSION = re.compile(r"\.?(?:v|ver|version|rev|release)?[-_. ]?(\d+)(?:[-_.]\w+)*", re.IGNORECASE | re.ASCII)


def like_a_version(name: str) -> bool:
    """Whether a directory that is no version was probably meant as one."""
    return version_number(name) is None and _LIKE_A_VERSION.fullmatch(name) is not None


class Misplaced:
    """Looks for what is misplaced. `artefacts` is asked when something is looked at. One thread only."""

    def __init__(self, artefacts: Artefacts) -> None:
        self._artefacts = artefacts

    def model_files(self, directory: int) -> list[str]:
        """The names in a directory (a descriptor) that look like a model's file, sorted. Raises OSError."""
        known, names = frozenset(self._artefacts()), _visible(directory)
        return [name for name in names if name in known or is_model_file(name) or _is_code(name, names)]

    def served_files(self, directory: int) -> list[str]:
        """Those of them that a backend serves under this name."""
        known, names = frozenset(self._artefacts()), _visible(directory)
        return [name for name in names if name in known or _is_code(name, names)]

    def in_root(self, root: Path, name: str) -> str:
        """What is wrong with a model's file that lies directly in a root, beside models."""
        stem = name.partition(".")[0] if name not in (CODE_FILE, *self._artefacts()) else "NAME"
        return (
            f"{name} lies directly in the repository {root} and is not served: expected "
            f"{root / stem / '1'}/{_wanted(name)}, a directory for the model and one for its version"
        )

    def in_directory(self, directory: Path, files: OpenRoot, listed: int) -> str:
        """What is wrong with a directory in a root that holds no version, "" if nothing shows that it was meant to be a
        model. `listed`: its descriptor. Raises OSError."""
        flat = self.model_files(listed)
        if flat:
            return (
                f"{directory / flat[0]} lies directly in the model's directory: expected a version between them, as "
                f"{directory / '1' / _wanted(flat[0])}"
            )
        for name in _directories(listed)[:_LOOKED_AT]:
            inside = self._inside(directory / name, files, listed)
            if inside:
                return inside
        return ""

    def versions(self, directory: Path, files: OpenRoot, listed: int, names: Iterable[str]) -> tuple[str, ...]:
        """What is wrong with those of the directories `names` of a model, which has versions, that were probably meant
        as versions, too. Raises OSError."""
        wrong = [name for name in names if like_a_version(name)][:_LOOKED_AT]
        return tuple(text for name in wrong if (text := self._inside(directory / name, files, listed)))

    def _inside(self, directory: Path, files: OpenRoot, parent: int) -> str:
        """What is wrong with a directory in a model's directory, "" if nothing shows that it is a version."""
        try:
            with files.find(directory.name, parent, directory) as found:
                listed = found.open_directory()
        except OSError:
            return ""  # a link that leads out, or no rights: nothing that would be served
        try:
            models = self.model_files(listed)
            if models:
                return _unnumbered(directory, models[0])
            inner = _numbered(files, listed, directory)
        except OSError:
            return ""
        finally:
            os.close(listed)
        if not inner:
            return ""
        group = directory.parent
        return (
            f"{group} holds models ({directory.name}), not versions: move them up to {group.parent}, or give "
            f"{group} as one more --model-repository"
        )


def _is_code(name: str, beside: Collection[str]) -> bool:
    """Whether a file is a model in Python code: many directories hold a file of that name, but few a model's settings
    too, and such a model needs them."""
    return name == CODE_FILE and any(settings in beside for settings in SETTINGS_FILES)


def _numbered(files: OpenRoot, listed: int, directory: Path) -> list[int]:
    """The versions in a directory (a descriptor) that hold something."""
    numbers = []
    for number, names in version_directories(listed).items():
        try:
            with files.find(names[0], listed, directory / names[0]) as found:
                inside = found.open_directory()
        except OSError:
            continue
        try:
            if os.listdir(inside):
                numbers.append(number)
        finally:
            os.close(inside)
    return numbers


def _unnumbered(directory: Path, model: str) -> str:
    name = directory.name
    number = _LIKE_A_VERSION.fullmatch(name)
    if name.isascii() and name.isdigit():
        what = f"a version above {MAX_VERSION}, which no protocol can carry"
    elif name.startswith("."):
        what = "hidden, and hidden directories are never versions"
    else:
        what = "no version"
    wanted = str(min(int(number[1][:19]), MAX_VERSION)) if number is not None and len(number[1]) <= 19 else "1"
    return f"{directory} (with {model}) is {what}: expected a directory named by an integer, such as {wanted}"


def _wanted(name: str) -> str:
    """The name under which a file would be served."""
    return (
        f"model{os.path.splitext(name)[1].lower()}"
        if name.lower().endswith((".onnx", ".pt", ".pt2", ".tflite"))
        else name
    )


def _visible(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        names = []
        for number, entry in enumerate(entries):
            if number == MOST_ENTRIES:
                raise OSError(errno.EFBIG, f"more than {MOST_ENTRIES} names")
            if not entry.name.startswith(".") and not is_partial(entry.name) and readable(entry.name) == entry.name:
                names.append(entry.name)
    return sorted(names)


def _directories(directory: int) -> list[str]:
    """Directories that may have been meant as versions or models: hidden ones only if they look like a version."""
    found = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number == MOST_ENTRIES:
                raise OSError(errno.EFBIG, f"more than {MOST_ENTRIES} names")
            name = entry.name
            if is_partial(name) or readable(name) != name or (name.startswith(".") and not like_a_version(name)):
                continue
            try:
                if entry.is_dir():
                    found.append(name)
            except OSError:
                continue
    return sorted(found)
