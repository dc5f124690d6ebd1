"""The private directory of one process: every temporary copy, upload and library that it unpacks lies in it.

    <parent>/inferd-<process id>-<random>/

A process holds a lock on its directory for as long as it lives, however it ends: the kernel drops the lock. So the next
process that starts can tell the directories of the living from those of the dead, and removes the latter.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_NAME: Final = re.compile(r"inferd-[0-9]+-\w+")
_TRIES: Final = 100  # another process may remove an empty parent at any moment
_PAUSE: Final = 0.01  # seconds
_ADVICE: Final = "set server.work_dir to a writable directory on a local disk, such as an emptyDir"


class WorkDirError(Exception):
    """There is no directory that this process may write to. The message is for operators."""


class WorkDir:
    """A private directory, made and locked. Close it in the end; the process's thread that made it does both.

    path    the directory
    swept   names of the directories of dead processes that were removed
    """

    def __init__(self, parent: Path | None = None) -> None:
        """`parent`: the directory below which it lies; it is made if it is not there. None: a directory of this user
        below TMPDIR, or else /tmp. Raises WorkDirError."""
        self._own_parent: Final = parent is None
        self._parent: Final = _default_parent() if parent is None else Path(os.path.abspath(parent))
        try:
            self.path, self._descriptor, dead = self._claim()
        except OSError as error:
            raise WorkDirError(
                f"the directory for temporary files, {self._parent}, cannot be used: {error.strerror or error}; "
                f"{_ADVICE}"
            ) from None
        self._put_back: Callable[[], None] = lambda: None
        self.swept: Final = [path.name for path, _ in dead]
        for path, descriptor in dead:  # locked by this process, so that no other one removes it as well
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def use(self, environment: MutableMapping[str, str]) -> None:
        """Makes it the place of all temporary files of this process, and of those that get this environment, until it
        is closed."""
        before = environment.get("TMPDIR"), tempfile.tempdir
        environment["TMPDIR"] = str(self.path)
        tempfile.tempdir = str(self.path)

        def put_back() -> None:
            environment.pop("TMPDIR", None)
            if before[0] is not None:
                environment["TMPDIR"] = before[0]
            tempfile.tempdir = before[1]

        self._put_back = put_back

    def close(self) -> None:
        """Removes the directory with all that is in it. Never raises; calling it again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        self._put_back()
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(descriptor)
        if self._own_parent:
            try:
                self._parent.rmdir()  # the last process on the machine leaves nothing
            except OSError:
                pass

    def _claim(self) -> tuple[Path, int, list[tuple[Path, int]]]:
        for _ in range(_TRIES):
            self._make_parent()
            try:
                held = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            try:
                # A directory is made and locked, or found to be unlocked, by one process at a time.
                fcntl.flock(held, fcntl.LOCK_EX)
                path = Path(tempfile.mkdtemp(prefix=f"inferd-{os.getpid()}-", dir=self._parent))
                descriptor = _locked(path)
                if descriptor is None:
                    raise OSError(None, "another process holds a lock on it")
                return path, descriptor, self._dead(path)
            except FileNotFoundError:
                continue  # its last user has removed the parent between the two steps
            finally:
                os.close(held)
        raise OSError(None, "it vanishes again and again")

    def _make_parent(self) -> None:
        if not self._own_parent:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        try:
            self._parent.mkdir(mode=0o700)
        except FileExistsError:
            # Everybody may make directories in /tmp: one of somebody else could be full of traps.
            found = self._parent.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise OSError(None, "it is not a directory that belongs to this user alone") from None

    def _dead(self, own: Path) -> list[tuple[Path, int]]:
        """The directories of processes that have ended, each with the descriptor that locks it now."""
        found = []
        for name in sorted(os.listdir(self._parent)):
            path = self._parent / name
            if path == own or not _NAME.fullmatch(name):
                continue
            descriptor = _locked(path)
            if descriptor is not None:
                found.append((path, descriptor))
        return found


def notes_of_the_living(name: str, parent: Path | None = None) -> list[str]:
    """The files of this name in the directories of this user's living processes, in the order of their names. `parent`:
    as for WorkDir. Processes without such a file, or whose directories cannot be read, are left out."""
    place = _default_parent() if parent is None else parent
    found = []
    try:
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        # Nobody makes a directory meanwhile, whose lock would be taken here for a moment. A maker needs milliseconds.
        for remaining in reversed(range(_TRIES)):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not remaining:
                    return []
                time.sleep(_PAUSE)
        for entry in sorted(os.listdir(held)):
            if not _NAME.fullmatch(entry):
                continue
            descriptor = _locked(place / entry)
            if descriptor is not None:
                os.close(descriptor)  # nobody held the lock: its process has ended
                continue
            try:
                if (place / entry).lstat().st_uid != os.geteuid():
                    continue  # what others say of this user's servers is not believed
                found.append((place / entry / name).read_text())
            except (OSError, ValueError):
                continue
    finally:
        os.close(held)
    return found


def _default_parent() -> Path:
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"inferd-{os.geteuid()}"


def _locked(path: Path) -> int | None:
    """The descriptor that locks a directory of this user from now on; None if a living process holds the lock, or if it
    is something else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
