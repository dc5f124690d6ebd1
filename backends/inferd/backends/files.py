"""How files of a model repository are found, opened and read: one rule for every file.

    FileRule     where files may be read: below a root, and where its links may lead. A value
    OpenRoot     the same, opened: finds, opens, reads and walks
    Found        one file or directory that was found
    FileWindow   an opened file, read at any position

Only regular files are opened: a named pipe would block its reader for ever, and a device may do anything. A path is
followed name by name, each by the descriptor of the directory before it. So a root such as /proc/PID/root/models works,
and what was checked is what is opened, also if somebody renames or links meanwhile. A link may lead anywhere on the
way, but must end below the root or below an allowed target: this is decided by climbing from the directory that was
reached to its parents, not by comparing names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

MOST_LINKS: Final = 40  # followed on the way to one file, as in Linux
MOST_ENTRIES: Final = 100_000  # names in the directories of one walk, and in one directory
MOST_DEPTH: Final = 32  # directories within each other in one walk
_MOST_PARENTS: Final = 4096  # a path cannot have more
_CHUNK: Final = 1 << 24
_WINDOW: Final = 1 << 18  # bytes that FileWindow reads at once

# O_PATH needs no permission to read the directory, only to pass through it. Systems other than Linux do not have it.
_PASS: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}
_Identity = tuple[int, int]  # device and inode


class FileRefused(OSError):
    """A file that is never read. `strerror` says what it is, `str()` names the file, too."""

    def __str__(self) -> str:
        return f"{self.filename} is {self.strerror}"


class LinkRefused(FileRefused):
    """A link that leads out of the root and of the allowed targets."""

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


@dataclass(frozen=True, slots=True)
class FileRule:
    """Where files may be read: below the directory `root`; links may lead there and below the directories `allowed`.
    All are absolute paths. `allowed` None: links may lead anywhere."""

    root: str
    allowed: tuple[str, ...] | None = ()

    def opened(self) -> OpenRoot:
        """The root, opened; to be closed by the caller. Raises OSError."""
        return OpenRoot(self)

    def read(self, path: Path | str, most: int | None = None) -> bytes:
        """The content of one file, at most `most` bytes. Raises OSError."""
        with self.opened() as root:
            return root.read(path, most)


class Found:
    """A file or directory that was found: its stat, and the descriptor of its directory until it is closed. Use it as a
    context manager. `shown`: its path for messages."""

    __slots__ = ("_borrowed", "_directory", "_name", "shown", "stat")

    def __init__(self, directory: int, name: str, found: os.stat_result, shown: str, *, borrowed: bool = False) -> None:
        """`directory`: the descriptor of the directory in which `name` is no link; closed with this object unless it
        is borrowed."""
        self._borrowed = borrowed
        self._directory = directory
        self._name = name
        self.stat = found
        self.shown = shown

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    def open(self) -> int:
        """A descriptor to read the file. Raises FileRefused if it is no regular file, OSError."""
        _check_regular(self.stat, self.shown)
        descriptor = os.open(self._name, _READ, dir_fd=self._directory)
        try:
            # It may have been replaced. Opening a pipe with O_NONBLOCK does not block.
            _check_regular(os.fstat(descriptor), self.shown)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_directory(self) -> int:
        """A descriptor to list the directory. Raises OSError."""
        return os.open(self._name, _LIST, dir_fd=self._directory)

    def read(self, most: int | None = None) -> bytes:
        """The content. Raises FileRefused if it has more than `most` bytes or is no regular file, OSError."""
        descriptor = self.open()
        try:
            if most is not None and os.fstat(descriptor).st_size > most:
                raise FileRefused(errno.EFBIG, f"larger than {most} bytes", self.shown)
            chunks = []
            size = 0
            while chunk := os.read(descriptor, _CHUNK):
                size += len(chunk)
                if most is not None and size > most:
                    raise FileRefused(errno.EFBIG, f"larger than {most} bytes", self.shown)
                chunks.append(chunk)
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if not self._borrowed:
            os.close(self._directory)

    def __enter__(self) -> Found:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class WalkEntry:
    """One name that a walk has met, by its path below the top.

    found     the file; None for a link without a target, and for a directory that the walk has visited before
    same_as   for a directory that was visited before: the path by which it was visited
    """

    path: str
    found: Found | None = None
    same_as: str | None = None


class OpenRoot:
    """The opened root of a FileRule. Use it as a context manager. One thread only.

    A path is given below the root, or as an absolute path that begins with the root's own text. `start`: the descriptor
    of a directory from which a relative path is followed instead of the root.
    """

    def __init__(self, rule: FileRule) -> None:
        """Raises OSError if the root cannot be opened. Allowed targets that are not there are left out."""
        self.rule = rule
        self._bases: dict[str, int] = {}
        try:
            self._bases[rule.root] = os.open(rule.root, _PASS)
            for path in rule.allowed or ():
                try:
                    self._bases.setdefault(path, os.open(path, _PASS))
                except OSError:
                    continue
            self._root = self._bases[rule.root]
            self._identities = {_identity(os.fstat(descriptor)) for descriptor in self._bases.values()}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the descriptors."""
        while self._bases:
            os.close(self._bases.popitem()[1])

    def __enter__(self) -> OpenRoot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, path: Path | str, start: int | None = None, shown: Path | str | None = None) -> Found:
        """The file or directory at `path`, links followed; to be closed before `start` is. `shown`: its path for
        messages. Raises LinkRefused for a link that leads out, FileNotFoundError, OSError."""
        text = os.fspath(path)
        shown = os.fspath(shown) if shown is not None else text
        if start is not None and os.sep not in text:  # most often a plain name in a directory that is open already
            found = os.stat(text, dir_fd=start, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode) and text != "..":
                return Found(start, text, found, shown, borrowed=True)
        todo = deque(text.split(os.sep))
        at, linked = self._start(todo, text, start)
        links = 0
        try:
            while True:
                name = todo.popleft() if todo else "."
                if name in ("", ".") and todo:
                    continue
                if name == "..":
                    linked = True
                    at = _replaced(at, os.open("..", _PASS, dir_fd=at))
                    continue
                name = name or "."
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), shown)
                    linked = True
                    target = os.readlink(name, dir_fd=at)
                    todo.extendleft(reversed(target.split(os.sep)))
                    if os.path.isabs(target):
                        at = _replaced(at, self._base(todo, target))
                elif not todo:
                    if linked:
                        self._check_inside(at, name, found, shown)
                    return Found(at, name, found, shown)
                else:
                    at = _replaced(at, os.open(name, _PASS | os.O_NOFOLLOW, dir_fd=at))
        except BaseException:
            os.close(at)
            raise

    def read(self, path: Path | str, most: int | None = None) -> bytes:
        """The content of one file. See Found.read."""
        with self.find(path) as found:
            return found.read(most)

    def open(self, path: Path | str) -> int:
        """A descriptor to read one file. See Found.open."""
        with self.find(path) as found:
            return found.open()

    def walk(
        self, top: int, shown: Path | str, descend: Callable[[str], bool] = lambda name: True
    ) -> Iterator[WalkEntry]:
        """All names below the directory with the descriptor `top`, in the order of their names; a directory comes
        before what is in it. Links are followed. Every directory is visited once, by whatever links and names it can be
        reached. What is yielded is closed when the next entry is asked for.

        descend   whether a directory with this name is visited

        Raises LinkRefused, OSError; ELOOP for a link that leads back into a directory above it, EFBIG for too many
        names, ENAMETOOLONG for too many levels.
        """
        return _Walk(self, descend).directory(top, "", os.fspath(shown), 0)

    def _start(self, todo: deque[str], text: str, start: int | None) -> tuple[int, bool]:
        """A descriptor of the directory where `todo` begins, and whether it may lie outside."""
        if not os.path.isabs(text):
            return os.dup(self._root if start is None else start), False
        base = self._textual_base(text)
        if base is None:
            return os.open(os.sep, _PASS), True
        _drop_base(todo, base)
        return os.dup(self._bases[base]), False

    def _base(self, todo: deque[str], target: str) -> int:
        """A descriptor of the directory where the absolute `target` of a link begins: a base, if its text says so. A
        base such as /proc/PID/root is a link whose own text leads elsewhere."""
        base = self._textual_base(target)
        if base is None:
            return os.open(os.sep, _PASS)
        _drop_base(todo, base)
        return os.dup(self._bases[base])

    def _textual_base(self, path: str) -> str | None:
        fitting = (base for base in self._bases if path == base or path.startswith(base.rstrip(os.sep) + os.sep))
        return max(fitting, key=len, default=None)

    def _check_inside(self, directory: int, name: str, found: os.stat_result, shown: str) -> None:
        if self.rule.allowed is None:
            return
        inner = name if stat.S_ISDIR(found.st_mode) else "."
        if not self._inside(os.open(inner, _PASS | os.O_NOFOLLOW, dir_fd=directory)):
            leads = os.path.realpath(shown) if os.path.isabs(shown) else "another place"
            raise LinkRefused(
                errno.EPERM,
                f"links to {leads}, outside the repository {self.rule.root}; "
                f"add its directory to repository.allowed_link_targets to allow it",
                shown,
            )

    def _inside(self, at: int) -> bool:
        """Whether a directory is a base or lies below one. Closes its descriptor."""
        try:
            identity = _identity(os.fstat(at))
            for _ in range(_MOST_PARENTS):
                if identity in self._identities:
                    return True
                at = _replaced(at, os.open("..", _PASS, dir_fd=at))
                below, identity = identity, _identity(os.fstat(at))
                if identity == below:
                    return False
            return False
        finally:
            os.close(at)


class _Walk:
    """One walk: the directories that it has visited, and how many names it has met."""

    def __init__(self, root: OpenRoot, descend: Callable[[str], bool]) -> None:
        self._root = root
        self._descend = descend
        self._visited: dict[_Identity, str] = {}
        self._above: set[_Identity] = set()
        self._names = 0

    def directory(self, descriptor: int, below: str, shown: str, depth: int) -> Iterator[WalkEntry]:
        if depth > MOST_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"directories within each other, more than {MOST_DEPTH} levels", shown)
        identity = _identity(os.fstat(descriptor))
        self._visited[identity] = below
        self._above.add(identity)
        for name, linked, inner in self._listed(descriptor, shown):
            path, place = f"{below}{name}", os.path.join(shown, name)
            if inner and not self._descend(name):
                continue
            try:
                found = self._root.find(name, descriptor, place) if linked or inner else _entry(descriptor, name, place)
            except FileNotFoundError:
                if linked:
                    yield WalkEntry(path)
                continue  # removed since the directory was listed
            with found:
                if not found.is_directory:
                    yield WalkEntry(path, found)
                elif self._descend(name):
                    yield from self._inner(found, path, place, depth)
        self._above.discard(identity)

    def _inner(self, found: Found, path: str, place: str, depth: int) -> Iterator[WalkEntry]:
        identity = _identity(found.stat)
        if identity in self._above:
            raise OSError(errno.ELOOP, "a link that leads back into a directory above it", place)
        if identity in self._visited:
            yield WalkEntry(path, same_as=self._visited[identity])
            return
        yield WalkEntry(path, found)
        inner = found.open_directory()
        try:
            yield from self.directory(inner, f"{path}/", place, depth + 1)
        finally:
            os.close(inner)

    def _listed(self, descriptor: int, shown: str) -> list[tuple[str, bool, bool]]:
        """Name, whether it is a link, whether it is a directory itself; sorted."""
        listed = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                self._names += 1
                if self._names > MOST_ENTRIES:
                    raise OSError(errno.EFBIG, f"more than {MOST_ENTRIES} names", shown)
                listed.append((entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False)))
        listed.sort()
        return listed


class FileWindow:
    """A file, read with `pread` through one window. Not thread-safe.

    The file is never memory-mapped: if a mapped file shrinks, the process is killed.

    size   bytes of the file that may be read
    """

    def __init__(self, descriptor: int, size: int | None = None) -> None:
        """`descriptor` stays the caller's to close. `size`: only the first bytes of the file, as many, are read."""
        self.size = os.fstat(descriptor).st_size if size is None else size
        self._descriptor = descriptor
        self._start = 0
        self._window = b""

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from position `start` on; fewer at the end. Raises OSError."""
        offset = start - self._start
        if offset < 0 or offset + count > len(self._window):
            self._window = os.pread(self._descriptor, max(count, _WINDOW), start)
            self._start, offset = start, 0
        return self._window[offset : offset + count]


def regular_file(path: Path | str) -> int:
    """A descriptor to read a file at any place, links followed. Raises FileRefused if it is no regular file,
    OSError."""
    text = os.fspath(path)
    _check_regular(os.stat(text), text)
    descriptor = os.open(text, _READ & ~os.O_NOFOLLOW)
    try:
        _check_regular(os.fstat(descriptor), text)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _entry(descriptor: int, name: str, shown: str) -> Found:
    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    return Found(descriptor, name, found, shown, borrowed=True)


def _check_regular(found: os.stat_result, shown: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise FileRefused(errno.EINVAL, f"not a regular file but {kind}", shown)


def _drop_base(todo: deque[str], base: str) -> None:
    for _ in range(len(base.rstrip(os.sep).split(os.sep))):
        todo.popleft()


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino
