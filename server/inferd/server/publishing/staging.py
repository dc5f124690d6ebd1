"""The hidden directory in which a version is built, and the rename that publishes it.

    <repository>/.publish-<process id>-<random>/        hidden: a server never looks into it
        root/<model>/<version>/                         what is published
        root/<model>/...                                links to the settings of a model that is there already
        work/                                           whatever is needed on the way

`root` is a repository of one model, so that the new version can be loaded exactly as it will be served. The rename is
all or nothing: of the version, or of the model's whole directory if the model is new. A process holds a lock on its
hidden directory for as long as it lives, so the next publisher can tell what a killed one has left, and removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inferd.server.publishing.errors import PublishError
from inferd.server.repository.layout import (
    MAX_VERSION,
    PARTIAL_SUFFIXES,
    is_hidden,
    is_partial,
    readable,
    version_number,
)

_NAME: Final = re.compile(r"\.publish-[0-9a-f-]+")
_TRIES: Final = 100  # of a number that other publishers take at the same time
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class Staging:
    """The hidden directory of one publication. Use it as a context manager: whatever is not published is removed.

    model      name of the model
    place      <repository>/<model>, which may not be there yet
    number     the version's number; `publish` may take a higher one if it was not asked for
    root       a repository that holds this model and this version only
    version    the version's directory in `root`, empty at first
    work       an empty directory for everything else
    """

    def __init__(self, repository: Path, model: str, number: int | None = None) -> None:
        """Makes the directory, and the repository if it is not there. `number`: the version's number, None for the
        highest one there and 1. Raises PublishError."""
        check_model_name(model)
        if number is not None and not 0 <= number <= MAX_VERSION:
            raise PublishError(f"--version {number}: expected 0 to {MAX_VERSION}", usage=True)
        self.model: Final = model
        self.repository: Final = Path(os.path.abspath(repository))
        self.place: Final = self.repository / model
        self._asked = number
        self._made: list[Path] = []
        self._hidden: Path | None = None
        self._lock = -1
        try:
            self._make_repository()
            self.number = self._free_number()
            self._hidden = self._claim()
            self.root: Final = self._hidden / "root"
            self.work: Final = self._hidden / "work"
            self.version = self.root / model / str(self.number)
            self.version.mkdir(parents=True)
            self.work.mkdir()
            self._link_settings()
        except OSError as error:
            self.close()
            raise PublishError(f"cannot publish to {self.place}: {_reason(error)}") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self) -> Path:
        """Writes the version's files to the disk and renames its directory into the repository. Returns the place.
        Raises PublishError; then nothing is published."""
        try:
            flush(self.version)
            return self._rename()
        except OSError as error:
            raise PublishError(f"cannot publish to {self.place}: {_reason(error)}") from None

    def close(self) -> None:
        """Removes what was not published. Never raises."""
        if self._hidden is not None:
            shutil.rmtree(self._hidden, ignore_errors=True)
            self._hidden = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        for directory in reversed(self._made):
            _remove_if_empty(directory)
        self._made.clear()

    # -- making --------------------------------------------------------------------------------------------------------

    def _make_repository(self) -> None:
        missing = []
        directory = self.repository
        while not directory.exists():
            missing.append(directory)
            directory = directory.parent
        if not directory.is_dir():
            raise PublishError(f"{directory} is no directory; expected the repository that the server watches")
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self._made.append(directory)

    def _claim(self) -> Path:
        """Makes and locks the hidden directory, and removes those of dead publishers."""
        parent = self.repository
        with _locked_parent(parent) as locked:
            # A model's directory may be on another file system than the repository: a rename cannot leave it.
            if self.place.is_dir() and self.place.stat().st_dev != parent.stat().st_dev:
                parent = self.place
            hidden = parent / f".publish-{os.getpid():x}-{secrets.token_hex(6)}"
            hidden.mkdir()
            self._lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # On a file system without locks nothing can be told of other publishers.
            if locked and _lock(self._lock):
                _sweep(self.repository, hidden)
                if self.place.is_dir():
                    _sweep(self.place, hidden)
        return hidden

    def _link_settings(self) -> None:
        """Makes the files of a model that is there already part of `root`: model.yaml, config.pbtxt, and the files
        that these name."""
        if not self.place.is_dir():
            return
        for name in os.listdir(self.place):
            if not is_hidden(name) and not is_partial(name) and version_number(name) is None:
                (self.root / self.model / name).symlink_to(self.place / name)

    # -- numbers and renames -------------------------------------------------------------------------------------------

    def _free_number(self) -> int:
        taken = _versions(self.place)
        if self._asked is None:
            number = max(taken, default=0) + 1
            if number > MAX_VERSION:
                raise PublishError(
                    f"{self.place} holds version {MAX_VERSION}, the highest there can be; give --version"
                )
            return number
        if self._asked in taken:
            raise PublishError(f"{self.model}:{self._asked} is there already; a new version needs a new number")
        return self._asked

    def _rename(self) -> Path:
        for _ in range(_TRIES):
            self.number = number = self._free_number()
            place = self.place / str(number)
            try:
                if self.place.exists():
                    self.version.rename(place)
                else:
                    self._rename_model(number)
            except OSError as error:
                # Another publisher has made the model or taken the number after the directory was read.
                if error.errno in _TAKEN and (place.exists() or self.place.exists()):
                    continue
                raise
            sync(self.place)
            sync(self.repository)
            self._made.clear()
            return place
        raise PublishError(f"{self.place}: no free version number was found in {_TRIES} tries")

    def _rename_model(self, number: int) -> None:
        whole = self.root / self.model
        if self.version.name != str(number):
            self.version = self.version.rename(whole / str(number))
        sync(whole)
        try:
            whole.rename(self.place)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            self._link_settings()
            raise


def check_model_name(model: str) -> None:
    """Raises PublishError for a name that no server would serve."""
    if not model or model.startswith(".") or "/" in model or "\0" in model:
        raise PublishError(
            f"{model!r} is no name for a model: it is the name of a directory, and none that begins with a dot",
            usage=True,
        )
    if is_partial(model) or readable(model) != model:
        ends = " ".join(PARTIAL_SUFFIXES)
        raise PublishError(
            f"{model!r} is no name for a model: it is UTF-8 text that does not end in {ends}", usage=True
        )


def flush(directory: Path) -> None:
    """Writes all files below a directory to the disk. A rename may reach the disk before the data: without this, a
    power cut could leave an empty version. Raises OSError."""
    for folder, _, files in os.walk(directory):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Writes one file or directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions(place: Path) -> set[int]:
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return set()
    return {number for name in names if (number := version_number(name)) is not None}


@contextmanager
def _locked_parent(directory: Path) -> Iterator[bool]:
    """Within this, no other publisher makes or removes hidden directories; False if the file system has no locks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(parent: Path, own: Path) -> None:
    """Removes the hidden directories of publishers of this user that have ended."""
    for name in os.listdir(parent):
        path = parent / name
        if path == own or not _NAME.fullmatch(name):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):  # else its publisher lives
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
