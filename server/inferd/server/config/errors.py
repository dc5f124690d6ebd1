"""What is wrong with a setting: which file, which key, what was expected, what came, and the nearest known key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferd.server.config.secrets import HIDDEN, is_secret, redacted

_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting.

    source     where it is written: "config.yaml", "environment variable INFERD_LOG__LEVEL", "--set log.level"
    line       1-based line of a file, 0 where there is none
    key        dotted path of the key, "" for the whole
    expected   what would have been right
    got        what came, secrets hidden
    nearest    the known key or value that was probably meant, "" where none is near
    """

    source: str
    key: str
    expected: str
    got: str = ""
    nearest: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        # "--set log.level" names the key already.
        text = f"{place}: {self.key}: " if self.key and not place.endswith(f" {self.key}") else f"{place}: "
        text += f"expected {self.expected}"
        if self.got:
            text += f", got {self.got}"
        if self.nearest:
            text += f"; did you mean {self.nearest}?"
        return text


class ConfigError(Exception):
    """Settings that cannot be used. `str(error)` has one line per problem; secrets are not in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Sequence[str | int]) -> str:
    """`models."a.b".labels[2]` from its parts, as `--set` reads it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = f'"{part}"' if part == "" or set(part) & set('."[]= ') else part
            text += f".{quoted}" if text else quoted
    return text


def shown(value: Any, path: Sequence[str | int] = ()) -> str:
    """A value as a message may show it: short, on one line, without secrets."""
    if any(isinstance(part, str) and is_secret(part) for part in path):
        return HIDDEN
    text = repr(redacted(value)) if isinstance(value, Mapping | list | tuple | str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
