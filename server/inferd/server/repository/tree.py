"""The files of one version directory: their stats, which every scan reads, and a hash of their content, which is read
seldom.

Equal trees mean that nothing has changed. Different trees mean that the content may have changed: `touch`, a remount or
a git-sync checkout change only the stats. Then the content hash decides.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from inferd.backends.files import FileRule, Found, OpenRoot
from inferd.server.errors import LayoutError
from inferd.server.repository.layout import is_hidden, is_partial

_CHUNK = 1 << 20


class FileStat(NamedTuple):
    """The stat of one file, links followed. `path` is relative to the version directory.

    `same_as` is given for a second way to a directory that is in the tree already: the first way to it. Then `path` has
    no stat of its own.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """All files below a directory, in the order of their paths.

    held          a file that shows that a copy is still running, "" for none
    directories   all directories that were visited, as absolute paths
    """

    files: tuple[FileStat, ...] = ()
    held: str = ""
    directories: tuple[str, ...] = field(default=(), compare=False)

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)

    @property
    def newest_ctime(self) -> float:
        """The wall-clock time (seconds) of the last change to any file, 0 for an empty tree."""
        return max((file.ctime_ns for file in self.files), default=0) / 1e9


def read_tree(directory: Path | str, rule: FileRule | None = None) -> Tree:
    """Stats all files below `directory`, which lies below the rule's root. Without a rule links may lead anywhere.

    Hidden files count, because copy programs write to them. Hidden directories do not (`.git`; a ConfigMap's `..data`,
    whose files are reached through links). Raises LayoutError for a link that leads out or in a circle, a special file,
    or too many files; OSError if the directory itself cannot be read.
    """
    with (rule or FileRule(os.fspath(directory), None)).opened() as root, root.find(directory) as found:
        return tree_of(root, found)


def tree_of(root: OpenRoot, directory: Found) -> Tree:
    """As `read_tree`, of a directory that was found already."""
    files: list[FileStat] = []
    held: list[str] = []
    top = directory.shown
    visited = [top]
    descriptor = directory.open_directory()
    try:
        for entry in root.walk(descriptor, top, lambda name: not is_hidden(name)):
            if entry.same_as is not None:
                files.append(FileStat(entry.path, same_as=entry.same_as or "/"))
            elif entry.found is None:
                held.append(f"{entry.path} is a link that leads nowhere yet")
            elif entry.found.is_directory:
                visited.append(os.path.join(top, entry.path))
            else:
                files.append(_file(entry.path, entry.found))
                if is_partial(entry.path):
                    held.append(f"{entry.path} is still being written (its name ends like a temporary file)")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EFBIG, errno.ENAMETOOLONG, errno.EPERM, errno.EINVAL):
            raise LayoutError(_words(error)) from None
        raise
    finally:
        os.close(descriptor)
    return Tree(tuple(files), held[0] if held else "", tuple(visited))


def content_hash(directory: Path | str, tree: Tree, rule: FileRule | None = None) -> str:
    """A hash of the names and the content of all visible files of `tree`. Slow: reads every file. Raises OSError.

    Hidden files are left out, because no backend reads them.
    """
    digest = hashlib.blake2b(digest_size=16)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with (rule or FileRule(os.fspath(directory), None)).opened() as root:
        for file in tree.files:
            if is_hidden(file.path.rpartition("/")[2]):
                continue
            name = os.fsencode(file.path)
            digest.update(b"%d:%b:%d:" % (len(name), name, file.size))
            if file.same_as:
                digest.update(os.fsencode(file.same_as))
                continue
            with open(root.open(os.path.join(directory, file.path)), "rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    digest.update(view[:count])
    return digest.hexdigest()


def _file(path: str, found: Found) -> FileStat:
    of = found.stat
    if not stat.S_ISREG(of.st_mode):
        raise LayoutError(f"{found.shown} is not a regular file")
    return FileStat(path, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_ino)


def _words(error: OSError) -> str:
    """The error as text, with the file's name."""
    return str(error) if type(error) is not OSError else f"{error.filename}: {error.strerror}"
