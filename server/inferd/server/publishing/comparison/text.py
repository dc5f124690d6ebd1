"""A comparison as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.server.publishing.comparison.judge import Objection
from inferd.server.publishing.comparison.measures import as_json as figures_json
from inferd.server.publishing.comparison.task import Comparison


def table(compared: Comparison) -> list[tuple[str, str, str, str]]:
    """Rows of (what, first, second, second in relation to the first). The first row names the versions."""
    found = compared.figures
    rows = [("", compared.names[0], compared.names[1], "")]
    if found.accuracy is not None:
        before, after = found.accuracy
        change = (
            f"{100 * (after - before):+.2f} points; {found.lost} rows lost, {found.won} won, p = {found.chance:.3g}"
        )
        rows.append(("accuracy", f"{before:.4f}", f"{after:.4f}", change))
    if found.agreement is not None:
        rows.append(("agreement", "", f"{found.agreement:.4f}", f"same decision, by output {found.decided_by!r}"))
    if found.cosine is not None:
        rows.append(("cosine", "", f"{found.cosine:.4f}", "mean over the rows"))
    rows.append(("largest difference", "", f"{found.max_abs_diff:.4g}", ""))
    if found.not_finite:
        rows.append(("NaN or infinity", "", str(found.not_finite), "numbers that were none before"))
    for count, (before, after) in sorted(compared.latency.items()):
        what = "latency of 1 row" if count == 1 else f"latency of {count} rows"
        rows.append((what, shown_time(before), shown_time(after), _ratio(before, after)))
    rows.append(("size", shown_size(compared.sizes[0]), shown_size(compared.sizes[1]), _ratio(*compared.sizes)))
    rows.append(("backend", compared.facts[0].backend, compared.facts[1].backend, ""))
    rows.append(("batching", compared.facts[0].batching, compared.facts[1].batching, ""))
    rows.append(("sample rows", str(found.rows), str(found.rows), ""))
    return rows


def lines(compared: Comparison) -> list[str]:
    """The table as text."""
    rows = table(compared)
    widths = [min(44, max(len(row[column]) for row in rows)) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def as_json(compared: Comparison, objections: Sequence[Objection] | None) -> dict[str, Any]:
    """`objections`: of the gate, None if none was asked."""
    found: dict[str, Any] = {
        "versions": list(compared.names),
        **figures_json(compared.figures),
        "latency_ms": {str(rows): list(pair) for rows, pair in compared.latency.items()},
        "bytes": list(compared.sizes),
        "backends": [facts.backend for facts in compared.facts],
        "batching": [facts.batching for facts in compared.facts],
    }
    if objections is not None:
        found["gate"] = {
            "passed": not objections,
            "failed": [{"key": objection.key, "reason": objection.text} for objection in objections],
        }
    return found


def shown_time(milliseconds: float) -> str:
    return f"{1000 * milliseconds:.0f} us" if milliseconds < 10 else f"{milliseconds:.1f} ms"


def shown_size(size: int) -> str:
    return f"{size:,} B"


def _ratio(before: float, after: float) -> str:
    return f"{100 * after / before:.0f}%" if before else ""
