"""The files of models that come with a load request: written to a private directory, bounded in size, removed after
use."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from inferd.server.errors import ExecutionFailed, InvalidRequest, Overloaded, Unavailable
from inferd.server.repository.layout import readable, version_number

DIRECTORY = "uploads"
_MAX_FILES = 1000
_MAX_NAME = 255  # bytes, of one part of a path
_MAX_PARTS = 16
_KEY = "expected a version and a file's path in it, such as file:1/model.onnx"

Files = Mapping[tuple[str, ...], bytes]
"""Path → content. The first part of a path is the version's number, the last one the file's name."""


def checked_files(files: Mapping[str, bytes]) -> dict[tuple[str, ...], bytes]:
    """The files with their paths split into parts. The keys of `files` are those of a load request without "file:".
    Raises InvalidRequest for a name that could lead out of the model's directory or cannot be a file's name."""
    if len(files) > _MAX_FILES:
        raise InvalidRequest(f"expected at most {_MAX_FILES} files, got {len(files)}")
    found: dict[tuple[str, ...], bytes] = {}
    for key, content in files.items():
        shown = f"file:{readable(key)[:200]!r}"
        version, *inside = key.split("/")
        number = version_number(version)
        if number is None or not inside:
            raise InvalidRequest(f"{shown}: {_KEY}")
        if len(inside) > _MAX_PARTS:
            raise InvalidRequest(f"{shown}: expected at most {_MAX_PARTS} directories, got {len(inside)}")
        for part in inside:
            if part in ("", ".", "..") or not part.isprintable() or len(part.encode()) > _MAX_NAME:
                raise InvalidRequest(f"{shown}: {_KEY}; {part[:40]!r} is no name of a file or directory")
        path = (str(number), *inside)
        if path in found:
            raise InvalidRequest(f"{shown}: the file was given twice")
        found[path] = content
    for path in found:
        for end in range(2, len(path)):
            if path[:end] in found:
                raise InvalidRequest(f"file:{'/'.join(path[:end])!r}: given as a file and as a directory")
    return found


class Uploads:
    """The directory of uploaded models. Thread-safe; `write` and `remove` touch the disk."""

    def __init__(self, state_dir: Path | None, room: int) -> None:
        """The directory lies in `state_dir`, or in the system's temporary directory. `room`: the largest number of
        bytes of all uploaded models together."""
        self._persistent_root = None if state_dir is None else state_dir / DIRECTORY
        self._room = room
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._sizes: dict[Path, int] = {}
        self._written = 0  # numbers the models' directories
        self._closed = False

    def clean(self) -> None:
        """Removes the uploads that an earlier process has left in the state directory."""
        if self._persistent_root is not None:
            shutil.rmtree(self._persistent_root, ignore_errors=True)

    def write(self, files: Files) -> Path:
        """Writes the files to a new directory and returns it. Raises Overloaded if there is no room, ExecutionFailed if
        a file cannot be written, Unavailable after `close`."""
        size = sum(map(len, files.values()))
        try:
            with self._lock:
                self._check_open()
                used = sum(self._sizes.values())
                if used + size > self._room:
                    raise Overloaded(
                        f"uploaded models may take {self._room} bytes together: {used} are taken, got {size} more"
                        " (admin.max_upload)"
                    )
                self._written += 1
                directory = self._made_root() / f"model-{self._written}"
                self._sizes[directory] = size
            try:
                for path, content in files.items():
                    _write(directory.joinpath(*path), content)
                self._check_open()
            except BaseException:
                self.remove(directory)
                if self._closed:  # `close` may have removed the root before this call created it again
                    shutil.rmtree(directory.parent, ignore_errors=True)
                raise
        except OSError as error:
            raise ExecutionFailed(
                f"the model's files cannot be written: {error.strerror or error}", accepted=False
            ) from None
        return directory

    def holds(self, directory: Path) -> bool:
        """Whether a directory lies in an uploaded model's."""
        root = self._root
        return root is not None and directory.is_relative_to(root)

    def remove(self, directory: Path) -> None:
        """Removes one model's directory. Never raises."""
        shutil.rmtree(directory, ignore_errors=True)
        with self._lock:
            self._sizes.pop(directory, None)

    def close(self) -> None:
        """Removes all uploads. Later writes are refused. Never raises."""
        with self._lock:
            self._closed = True
            root, self._root = self._root, None
            self._sizes.clear()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the server is shutting down")

    def _made_root(self) -> Path:
        if self._root is None:
            if self._persistent_root is None:
                self._root = Path(tempfile.mkdtemp(prefix="inferd-uploads-"))
            else:
                self._persistent_root.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._root = self._persistent_root
        return self._root


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # O_EXCL and O_NOFOLLOW: never write through a link or over an existing file.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
