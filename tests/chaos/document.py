"""The table of docs/reliability.md: the fault, the promise and the measured figures of each scenario."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from chaos.catalogue import SCENARIOS
from chaos.report import machine
from chaos.scenario import Result

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEAD = "| scenario | fault | promise | sent | answered | told an error | lost | wrong | longest gap |"


def lines() -> dict[str, tuple[str, ...]]:
    """The cells of the page's table, by the name of the scenario."""
    inside = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in inside.splitlines() if "`" in line]
    return {found[1]: row for row in rows if (found := re.match(r"`([\w-]+)`", row[0]))}


def write(results: Sequence[Result], skipped: dict[str, str]) -> None:
    """Writes new figures into the page. Scenarios that were not run keep their old figures."""
    before = lines()
    played = {result.name: result for result in results}
    rows = [f"Measured {machine()}:", "", HEAD, "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |"]
    for scenario in SCENARIOS:
        figures: tuple[str, ...]
        if scenario.name in played:
            figures = _figures(played[scenario.name])
        elif scenario.name in skipped:
            figures = (skipped[scenario.name], *[""] * 5)
        else:
            figures = before.get(scenario.name, ())[3:] or ("not yet measured", *[""] * 5)
        rows.append(f"| `{scenario.name}` | {scenario.fault} | {scenario.promise} | {' | '.join(figures)} |")
    if played:
        answered, sent = (sum(getattr(r, name) for r in results) for name in ("answered", "sent"))
        lost, wrong = (sum(getattr(r, name) for r in results) for name in ("lost", "wrong"))
        rows += ["", f"In all {sent:,} requests: {answered:,} answered and right, {lost} lost, {wrong} wrong."]
    text = PAGE.read_text()
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{tail}")


def _figures(result: Result) -> tuple[str, ...]:
    told = ", ".join(f"{what} {count:,}" for what, count in result.refused.items()) or "none"
    gap = f"{1e3 * result.gap:,.0f} ms"
    if result.gap_beside is not None:
        gap += f" (beside: {1e3 * result.gap_beside:,.0f} ms)"
    return f"{result.sent:,}", f"{result.answered:,}", told, str(result.lost), str(result.wrong), gap
