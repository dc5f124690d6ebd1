"""Finds the differences between two sides, subtracts the expected ones, and reports the rest."""

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
    """One value that differs: the case, the path to the value in it, and both values."""

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
    """An entry of the allow-list: patterns for case and path, optionally the exact values, and the reason."""

    case: str
    where: str
    reason: str
    base: Any = None
    head: Any = None
    used: int = 0

    def covers(self, difference: Difference) -> bool:
        """Whether this entry allows the difference."""
        return (
            fnmatch.fnmatchcase(difference.case, self.case)
            and fnmatch.fnmatchcase(difference.where, self.where)
            and (self.base is None or self.base == difference.base)
            and (self.head is None or self.head == difference.head)
        )


@dataclass
class Report:
    """What was compared, and the result."""

    expected: list[Expected] = field(default_factory=list)
    cases: int = 0
    values: int = 0
    differences: list[Difference] = field(default_factory=list)
    allowed: list[Difference] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    def compare(self, case: str, base: Any, head: Any) -> None:
        """Compares one case."""
        self.cases += 1
        self.values += leaves(base)
        self.seen[case] = base
        for where, one, other in differences(base, head):
            self.add(Difference(case, where, one, other))

    def add(self, found: Difference) -> None:
        """Records a difference as allowed or not."""
        for entry in self.expected:
            if entry.covers(found):
                entry.used += 1
                self.allowed.append(found)
                return
        self.differences.append(found)

    @property
    def failed(self) -> bool:
        """Whether there is a difference that is not allowed, a broken invariant or a failed scene."""
        return bool(self.differences or self.broken)

    def text(self, *, whole: bool = False) -> str:
        """The report. `whole`: every scene has run, so unused entries of the allow-list are reported as well."""
        lines = [f"DIFFERENT: {each}" for each in self.differences]
        lines += [f"BROKEN: {each}" for each in self.broken]
        lines += [
            f"not seen: the expected difference {entry.case!r} at {entry.where!r}"
            for entry in self.expected
            if whole and not entry.used
        ]
        lines.append(
            f"{self.cases} cases with {self.values} values compared: {len(self.differences)} differences, "
            f"{len(self.allowed)} expected ones, {len(self.broken)} broken invariants or failed scenes"
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
    """Yields (path, base value, head value) for each difference, as deep in the two values as possible."""
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
    """The number of single values in a nested value."""
    if isinstance(value, Mapping):
        return sum(leaves(each) for each in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sum(leaves(each) for each in value)
    return 1


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _common(base: str, head: str) -> int:
    """The length of the common beginning that the report leaves out."""
    same = next(
        (i for i, (one, other) in enumerate(zip(base, head, strict=False)) if one != other), min(len(base), len(head))
    )
    return max(0, same - _BEFORE) if max(len(base), len(head)) > _WIDTH else 0


def _cut(text: str, skipped: int) -> str:
    shown = text[skipped : skipped + _WIDTH]
    return f"{'... ' if skipped else ''}{shown}{' ...' if skipped + _WIDTH < len(text) else ''}"
