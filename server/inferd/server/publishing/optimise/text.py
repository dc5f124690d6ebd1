"""What optimising has found, as a table and as JSON."""

from __future__ import annotations

from typing import Any

from inferd.server.publishing.comparison.judge import caution
from inferd.server.publishing.comparison.text import as_json as comparison_json
from inferd.server.publishing.comparison.text import shown_size, shown_time
from inferd.server.publishing.optimise.optimiser import Optimised

_HEAD = ("VARIANT", "SIZE", "ACCURACY", "AGREEMENT", "COSINE", "1 ROW", "BATCH", "GATE")


def lines(done: Optimised) -> list[str]:
    """The table, and below it why variants did not pass."""
    rows: list[tuple[str, ...]] = [_HEAD]
    compared = next((attempt.compared for attempt in done.attempts if attempt.compared is not None), None)
    if compared is not None:
        rows.append(_row(compared, 0, done.parent, ""))
    for attempt in done.attempts:
        if attempt.compared is None:
            rows.append((attempt.kind.name, "", "", "", "", "", "", "not made"))
        else:
            rows.append(_row(attempt.compared, 1, attempt.kind.name, "passed" if attempt.passed else "refused"))
    shown = [i for i in range(len(_HEAD)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in shown}
    said = ["  ".join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in rows]
    careful = caution(done.gate, compared.figures) if compared is not None else ""
    if careful:
        said.append(f"note: {careful}")
    for attempt in done.attempts:
        name = attempt.kind.name
        if attempt.failed:
            said.append(f"{name}: not made: {attempt.failed}")
        said += [f"{name}: {objection.key}: {objection.text}" for objection in attempt.objections]
        if attempt.unbatched:
            said.append(f"{name}: note: requests do not share batches any more: {attempt.unbatched}")
    return said


def as_json(done: Optimised) -> dict[str, Any]:
    """The same for programs."""
    variants = []
    for attempt in done.attempts:
        entry: dict[str, Any] = {"as": attempt.kind.name, "passed": attempt.passed, "failed": attempt.failed}
        if attempt.compared is not None:
            entry |= comparison_json(attempt.compared, attempt.objections)
            entry["unbatched"] = attempt.unbatched
        variants.append(entry)
    return {
        "parent": done.parent,
        "variants": variants,
        "chosen": done.chosen.kind.name if done.chosen is not None else None,
        "published": str(done.place) if done.place is not None else None,
    }


def _row(compared: Any, side: int, name: str, verdict: str) -> tuple[str, ...]:
    found = compared.figures
    single = compared.latency.get(1)
    largest = max(compared.latency, default=0)
    batch = compared.latency.get(largest) if largest > 1 else None
    return (
        name,
        shown_size(compared.sizes[side]),
        f"{found.accuracy[side]:.4f}" if found.accuracy is not None else "",
        f"{found.agreement:.4f}" if side and found.agreement is not None else "",
        f"{found.cosine:.4f}" if side and found.cosine is not None else "",
        shown_time(single[side]) if single is not None else "",
        f"{shown_time(batch[side])} for {largest}" if batch is not None else "",
        verdict,
    )
