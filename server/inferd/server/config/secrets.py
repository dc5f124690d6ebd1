"""Decides by name which settings and log fields are secrets, and hides their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "<hidden>"
_LEVELS: Final = 20

_SECRET: Final = re.compile(
    r"secret|passw(or)?d|passphrase|(^|[_.-])pwd|credential|(^|[_.-])tokens?$|bearer|authorization|cookie"
    r"|api[_.-]?key|access[_.-]?key|private[_.-]?key|(^|[_.-])sha256$",  # a user may put a token in place of its hash
    re.IGNORECASE,
)
_USERINFO: Final = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def is_secret(name: str) -> bool:
    """Whether a value with this name must never be shown."""
    return _SECRET.search(name) is not None


def redacted(value: Any, *, levels: int = _LEVELS) -> Any:
    """A copy of nested values in which secrets, credentials in URLs and values deeper than `levels` are hidden."""
    if levels == 0 and isinstance(value, Mapping | list | tuple):
        return "..."
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if isinstance(key, str) and is_secret(key) and inner is not None
            else redacted(inner, levels=levels - 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, levels=levels - 1) for inner in value]
    if isinstance(value, str):
        return _USERINFO.sub(HIDDEN, value)
    return value
