"""Errors in settings: which file, which key, what was expected, what was found, and the nearest known key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferd.server.config.secrets import HIDDEN, is_secret, redacted

_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting.

    source     where it is set: "config.yaml", "environment variable INFERD_LOG__LEVEL", "--set log.level"
    line       line of the file, from 1; 0 if the source is no file
    key        dotted path of the key, "" for the whole source
    expected   what would have been right
    got        what was found, with secrets hidden
    nearest    the known key or value that was probably meant, "" if none is similar
    """

    source: str
    key: str
    expected: str
    got: str = ""
    nearest: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        # A source such as "--set log.level" names the key already.
        text = f"{place}: {self.key}: " if self.key and not place.endswith(f" {self.key}") else f"{place}: "
        text += f"expected {self.expected}"
        if self.got:
            text += f", got {self.got}"
        if self.nearest:
            text += f"; did you mean {self.nearest}?"
        return text


class ConfigError(Exception):
    """Settings that cannot be used. `str(error)` has one line for each problem and contains no secrets."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Sequence[str | int]) -> str:
    """A path as one text, in the notation of `--set`: `models."a.b".labels[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = f'"{part}"' if part == "" or set(part) & set('."[]= ') else part
            text += f".{quoted}" if text else quoted
    return text


def shown(value: Any, path: Sequence[str | int] = ()) -> str:
    """A value for a message: short, on one line, without secrets. `path` is the key's path, whose names decide whether
    the value is a secret."""
    if any(isinstance(part, str) and is_secret(part) for part in path):
        return HIDDEN
    text = repr(redacted(value)) if isinstance(value, Mapping | list | tuple | str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
