"""The files of one version directory: their stats, cheap and read at every scan, and the hash of their content, read
seldom.

Equal trees mean that nothing happened. Different trees mean that something may have happened: `touch`, a remount or a
git-sync checkout change stats but not content, and only the content hash tells.
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
    """One file. `path` is relative to the version directory, links followed."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Tree:
    """All files below a directory, by path. `held` says which file shows that a copy is under way, "" for none."""

    files: tuple[FileStat, ...] = ()
    held: str = ""

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)

    @property
    def newest_ctime(self) -> float:
        """Wall-clock seconds of the last change to any file, 0 for an empty tree."""
        return max((file.ctime_ns for file in self.files), default=0) / 1e9


def read_tree(directory: Path | str, rule: LinkRule | None = None) -> Tree:
    """Stats everything below `directory`.

    Hidden files count (copy programs write to them), hidden directories do not (`.git`, a ConfigMap's `..data`, which
    its links reach anyway). Without a `rule` links may lead anywhere. Raises LayoutError for a link that leads out, a
    special file, too many files; OSError when the directory itself cannot be read.
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
                continue  # gone since the listing: the next scan sees a different tree
            if not stat.S_ISREG(found.st_mode):
                raise LayoutError(f"{entry.path} is not a regular file")
            if is_partial(entry.name):
                held.append(f"{path} is still being written (its name ends like a temporary file)")
            files.append(FileStat(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
            if len(files) > _MAX_FILES:
                raise LayoutError(f"{top} holds more than {_MAX_FILES} files: not a model version")


def content_hash(directory: Path | str, tree: Tree) -> str:
    """A hash over names and bytes of the visible files of `tree`. Slow: reads everything. Raises OSError.

    Hidden files are left out: no backend reads them.
    """
    whole = hashlib.blake2b(digest_size=16)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    for file in tree.files:
        if is_hidden(file.path.rpartition("/")[2]):
            continue
        name = os.fsencode(file.path)
        whole.update(b"%d:%b:%d:" % (len(name), name, file.size))
        with open(os.path.join(directory, file.path), "rb", buffering=0) as source:
            while count := source.readinto(buffer):
                whole.update(view[:count])
    return whole.hexdigest()
