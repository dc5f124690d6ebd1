"""The files of one version directory: their stats, which every scan reads, and a hash of their content, which is read
seldom.

Equal trees mean that nothing has changed. Different trees mean that the content may have changed: `touch`, a remount or
a git-sync checkout change only the stats. Then the content hash decides.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inferd.server.errors import LayoutError
from inferd.server.repository.layout import LinkRule, is_hidden, is_partial

_MAX_FILES = 100_000
_MAX_DEPTH = 32
_CHUNK = 1 << 20


class FileStat(NamedTuple):
    """The stat of one file, links followed. `path` is relative to the version directory."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Tree:
    """All files below a directory, sorted by path. `held` names a file that shows that a copy is still running, "" for
    none."""

    files: tuple[FileStat, ...] = ()
    held: str = ""

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)

    @property
    def newest_ctime(self) -> float:
        """The wall-clock time (seconds) of the last change to any file, 0 for an empty tree."""
        return max((file.ctime_ns for file in self.files), default=0) / 1e9


def read_tree(directory: Path | str, rule: LinkRule | None = None) -> Tree:
    """Stats all files below `directory`.

    Hidden files count, because copy programs write to them. Hidden directories do not (`.git`; a ConfigMap's `..data`,
    whose files are reached through links). Without a `rule` links may lead anywhere. Raises LayoutError for a link that
    leads out, a special file, or too many files; OSError if the directory itself cannot be read.
    """
    files: list[FileStat] = []
    held: list[str] = []
    if rule is not None and os.path.islink(directory):
        rule.check(directory)
    _walk(os.fspath(directory), "", rule, files, held)
    files.sort()
    return Tree(tuple(files), held[0] if held else "")


def _walk(top: str, below: str, rule: LinkRule | None, files: list[FileStat], held: list[str]) -> None:
    if below.count("/") > _MAX_DEPTH:
        raise LayoutError(f"{top} is nested deeper than {_MAX_DEPTH} directories: a link that leads back into itself?")
    with os.scandir(top) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if rule is not None and entry.is_symlink():
                rule.check(entry.path)
            try:
                if entry.is_dir():
                    if not is_hidden(entry.name):
                        _walk(entry.path, f"{path}/", rule, files, held)
                    continue
                found = entry.stat()
            except FileNotFoundError:
                if entry.is_symlink():
                    held.append(f"{path} is a link that leads nowhere yet")
                continue  # deleted since the directory was read: the next scan sees a different tree
            if not stat.S_ISREG(found.st_mode):
                raise LayoutError(f"{entry.path} is not a regular file")
            if is_partial(entry.name):
                held.append(f"{path} is still being written (its name ends like a temporary file)")
            files.append(FileStat(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
            if len(files) > _MAX_FILES:
                raise LayoutError(f"{top} holds more than {_MAX_FILES} files: not a model version")


def content_hash(directory: Path | str, tree: Tree) -> str:
    """A hash of the names and the content of all visible files of `tree`. Slow: reads every file. Raises OSError.

    Hidden files are left out, because no backend reads them.
    """
    digest = hashlib.blake2b(digest_size=16)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    for file in tree.files:
        if is_hidden(file.path.rpartition("/")[2]):
            continue
        name = os.fsencode(file.path)
        digest.update(b"%d:%b:%d:" % (len(name), name, file.size))
        with open(os.path.join(directory, file.path), "rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(view[:count])
    return digest.hexdigest()
