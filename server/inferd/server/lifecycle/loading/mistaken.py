"""Words the error of a load by a file that is not what its name says: a Git LFS pointer, a web page, an archive."""

from __future__ import annotations

import os

from inferd.backends.files import OpenRoot
from inferd.backends.foreign_formats import HEAD, by_content
from inferd.server.repository.disk import VersionOnDisk

_MOST = 1000  # files that are looked at
_ASIDE = (".md", ".txt", ".json", ".yaml", ".yml", ".csv", ".pbtxt")  # seldom the reason that a model cannot be loaded


def explained(reason: str, version: VersionOnDisk) -> str:
    """`reason`, why a version could not be loaded, with what its files show about the cause. Reads the beginning of
    each file. Never raises."""
    try:
        with version.rule.opened() as root:
            for file in version.tree.files[:_MOST]:
                try:
                    head = _head(root, os.path.join(version.path, file.path))
                except OSError:
                    continue
                text = by_content(file.path, head, file.size)
                if text:
                    return f"{reason}; {text}" if file.path.lower().endswith(_ASIDE) else text
    except OSError:
        pass
    return reason


def _head(root: OpenRoot, path: str) -> bytes:
    descriptor = root.open(path)
    try:
        return os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
