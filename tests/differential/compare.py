"""What differs between two sides, what of it is expected, and how it is told."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ABSENT = "<absent>"
_WIDTH = 400  # characters of a value that are shown, from a little before the difference
_BEFORE = 40


@dataclass(frozen=True)
class Difference:
    """One value of one case. `kind` is "difference", or "broken" for a promise that a side does not keep."""

    case: str
    where: str
    base: Any
    head: Any

    def __str__(self) -> str:
        base, head = _shown(self.base), _shown(self.head)
        skipped = _common(base, head)
        values = f"      base: {_cut(base, skipped)}\n      head: {_cut(head, skipped)}"
        return f"{self.case}\n    {self.where or 'value'}\n{values}"


@dataclass
class Expected:
    """An entry of the allow-list: patterns of case and place, perhaps the values, and the reason."""

    case: str
    where: str
    reason: str
    base: Any = None
    head: Any = None
    used: int = 0

    def covers(self, difference: Difference) -> bool:
        """Whether it stands for this difference."""
        return (
            fnmatch.fnmatchcase(difference.case, self.case)
            and fnmatch.fnmatchcase(difference.where, self.where)
            and (self.base is None or self.base == difference.base)
            and (self.head is None or self.head == difference.head)
        )


@dataclass
class Report:
    """Everything that was compared."""

    expected: list[Expected] = field(default_factory=list)
    cases: int = 0
    values: int = 0
    differences: list[Difference] = field(default_factory=list)
    allowed: list[Difference] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    def compare(self, case: str, base: Any, head: Any) -> None:
        """One case of both sides."""
        self.cases += 1
        self.values += leaves(base)
        self.seen[case] = base
        for where, one, other in differences(base, head):
            self.add(Difference(case, where, one, other))

    def add(self, found: Difference) -> None:
        """A difference, which may be expected."""
        for entry in self.expected:
            if entry.covers(found):
                entry.used += 1
                self.allowed.append(found)
                return
        self.differences.append(found)

    @property
    def failed(self) -> bool:
        """Whether there is anything that nobody expects."""
        return bool(self.differences or self.broken)

    def text(self, *, whole: bool = False) -> str:
        """For people. `whole`: everything was played, so that what is expected should have been seen."""
        lines = [f"DIFFERENT: {each}" for each in self.differences]
        lines += [f"BROKEN: {each}" for each in self.broken]
        lines += [
            f"not seen: the expected difference {entry.case!r} at {entry.where!r}"
            for entry in self.expected
            if whole and not entry.used
        ]
        lines.append(
            f"{self.cases} cases with {self.values} values compared: {len(self.differences)} differences, "
            f"{len(self.allowed)} expected ones, {len(self.broken)} promises broken"
        )
        return "\n".join(lines)


def read_expected(path: Path) -> list[Expected]:
    """The allow-list: tables [[expected]] with case, where, reason, and perhaps base and head. An entry without a
    reason is refused."""
    found = [Expected(**each) for each in tomllib.loads(path.read_text()).get("expected", [])]
    for entry in found:
        if not entry.reason.strip():
            raise ValueError(f"{path}: {entry.case}: expected a reason")
    return found


def differences(base: Any, head: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ, as deep as they can be told apart."""
    if isinstance(base, Mapping) and isinstance(head, Mapping):
        for key in [*base, *(key for key in head if key not in base)]:
            yield from differences(
                base.get(key, ABSENT), head.get(key, ABSENT), f"{where}.{key}" if where else str(key)
            )
    elif isinstance(base, list) and isinstance(head, list) and len(base) == len(head):
        for i, (one, other) in enumerate(zip(base, head, strict=True)):
            yield from differences(one, other, f"{where}.{i}" if where else str(i))
    elif type(base) is not type(head) or base != head:
        yield where, base, head


def leaves(value: Any) -> int:
    """How many single values there are."""
    if isinstance(value, Mapping):
        return sum(leaves(each) for each in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sum(leaves(each) for each in value)
    return 1


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _common(base: str, head: str) -> int:
    """How much of the beginning is equal and may be left out."""
    same = next(
        (i for i, (one, other) in enumerate(zip(base, head, strict=False)) if one != other), min(len(base), len(head))
    )
    return max(0, same - _BEFORE) if max(len(base), len(head)) > _WIDTH else 0


def _cut(text: str, skipped: int) -> str:
    shown = text[skipped : skipped + _WIDTH]
    return f"{'... ' if skipped else ''}{shown}{' ...' if skipped + _WIDTH < len(text) else ''}"
