"""Writes what was measured into the tree: a page of results for each day, and the generated part of a document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Table, machine


def write_results(folder: Path, name: str, tables: Sequence[Table], command: str) -> Path:
    """Writes all tables into `folder/DATE-NAME.md`, and their plots into `folder/plots`. Returns the page."""
    date = time.strftime("%Y-%m-%d")
    lines = [f"# {name.capitalize()}, {date}", "", _when(command, date), ""]
    for table in tables:
        title, _, rest = table.markdown().partition("\n\n")
        lines.append(title)
        for plot, svg in table.plots.items():
            path = folder / "plots" / f"{date}-{name}-{plot}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(svg)
            lines += ["", f"![{table.title}](plots/{path.name})"]
        lines += ["", rest]
    page = folder / f"{date}-{name}.md"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def write_summary(document: Path, name: str, table: Table, command: str) -> None:
    """Writes one table between the markers of `name`; the rest of the document stays unchanged.

    Raises ValueError if the document does not contain `<!-- NAME: generated -->` and `<!-- NAME: end -->` once each, in
    this order.
    """
    text = document.read_text()
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{document.name}: expected {begin} and {end} once each, in this order")
    head, _, tail = text.partition(begin)
    _, _, tail = tail.partition(end)
    when = _when(command, time.strftime("%Y-%m-%d"))
    document.write_text(f"{head}{begin}\n\n{when}\n\n{table.rows_as_markdown()}\n{end}{tail}")


def _when(command: str, date: str) -> str:
    return f"Measured on {date} by `{command}` on: {machine()}."
