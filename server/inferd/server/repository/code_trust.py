"""Which code a model's files may bring along, by where they lie: `repository.allow`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from inferd.server.config.fields import ALL_ROOTS

UPLOADS: Final = "uploads"
"""The key of `repository.allow` for files that come with a load."""


class CodeTrust:
    """The kinds of code (`inferd.backends.api.CODE_KINDS`) that are allowed in each directory. Thread-safe; constant.

    Only the server's own configuration makes one, so that no model can allow itself anything.
    """

    def __init__(
        self,
        allow: Mapping[str, Sequence[str]],
        is_upload: Callable[[Path], bool] = lambda _directory: False,
        *,
        place: str | None = None,
    ) -> None:
        """`is_upload`: whether a directory holds files that came with a load: what is allowed in roots is not for
        them. `place`: the repository for which all files are meant, if they lie elsewhere now."""
        self._place: Final = place
        self._everywhere: Final = frozenset(allow.get(ALL_ROOTS, ()))
        self._uploads: Final = frozenset(allow.get(UPLOADS, ()))
        self._directories: Final = tuple(
            (Path(os.path.abspath(directory)), frozenset(kinds))
            for directory, kinds in allow.items()
            if directory not in (ALL_ROOTS, UPLOADS)
        )
        self._is_upload: Final = is_upload

    def setting(self, version: Path, root: str, kind: str) -> str:
        """What would allow a kind of code in a version's directory, in the server's configuration. `root`: the
        repository, or the base path, in which it lies."""
        return f"repository.allow: {{{UPLOADS if self._is_upload(version) else self._place or root}: [{kind}]}}"

    def kinds(self, version: Path) -> frozenset[str]:
        """What is allowed in a version's directory, whose path starts with the root or base path of the settings."""
        if self._is_upload(version):
            return self._uploads
        place = Path(os.path.abspath(version))
        allowed = self._everywhere
        for directory, kinds in self._directories:
            if place.is_relative_to(directory):
                allowed |= kinds
        return allowed
