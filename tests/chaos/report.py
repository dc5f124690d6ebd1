"""The report of a run of the chaos suite: a line for each scenario, a table, JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from chaos.scenario import Result

COLUMNS = (
    "scenario", "strikes", "sent", "answered", "told an error", "lost", "wrong", "longest gap, ms", "beside, ms",
    "counted",
)  # fmt: skip


def together(results: Iterable[Result]) -> list[Result]:
    """One result for each scenario, which sums up all its runs."""
    found: dict[str, Result] = {}
    for result in results:
        before = found.get(result.name)
        found[result.name] = result if before is None else _sum(before, result)
    return list(found.values())


def row(result: Result) -> tuple[str, ...]:
    """The cells of a line of the table."""
    return (
        result.name, str(result.strikes), f"{result.sent:,}", f"{result.answered:,}", _counts(result.refused) or "0",
        str(result.lost), str(result.wrong), f"{1e3 * result.gap:,.0f}",
        "" if result.gap_beside is None else f"{1e3 * result.gap_beside:,.0f}", _counts(result.notes),
    )  # fmt: skip


def markdown(results: Sequence[Result]) -> str:
    """The table as Markdown, with a line of sums."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(row, results)]
    lines.append(
        (
            "all",
            str(sum(r.strikes for r in results)),
            f"{sum(r.sent for r in results):,}",
            f"{sum(r.answered for r in results):,}",
            f"{sum(sum(r.refused.values()) for r in results):,}",
            str(sum(r.lost for r in results)),
            str(sum(r.wrong for r in results)),
            f"{1e3 * max((r.gap for r in results), default=0):,.0f}",
            "",
            "",
        )
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """The date and the machine of the measurement."""
    busy = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, load average {busy:.1f}"
    )


def save(results: Sequence[Result], skipped: dict[str, str], path: Path) -> None:
    """Writes the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "skipped": skipped, "scenarios": [asdict(result) for result in results]}
    path.write_text(json.dumps(content, indent=2) + "\n")


def _sum(one: Result, other: Result) -> Result:
    gaps = [gap for gap in (one.gap_beside, other.gap_beside) if gap is not None]
    return Result(
        name=one.name,
        strikes=one.strikes + other.strikes,
        seconds=one.seconds + other.seconds,
        sent=one.sent + other.sent,
        answered=one.answered + other.answered,
        refused=_added(one.refused, other.refused),
        lost=one.lost + other.lost,
        wrong=one.wrong + other.wrong,
        gap=max(one.gap, other.gap),
        gap_beside=max(gaps, default=None),
        notes=_added(one.notes, other.notes),
        faults=one.faults + other.faults,
    )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    # Values named "slowest ..." are maxima, all others are counts.
    return {
        key: max(one.get(key, 0), other.get(key, 0))
        if key.startswith("slowest")
        else one.get(key, 0) + other.get(key, 0)
        for key in sorted({*one, *other})
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count:,}" for key, count in counts.items())
