"""Writes tables and plots into a document, between two markers; the rest of the document stays unchanged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Table, machine


def write(document: Path, name: str, tables: Sequence[Table], command: str) -> None:
    """Writes the tables between the markers of `name`, and the plots into the folder `plots` beside the document.

    Raises ValueError if the document does not contain `<!-- NAME: generated -->` and `<!-- NAME: end -->` once each, in
    this order.
    """
    text = document.read_text()
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{document.name}: expected {begin} and {end} once each, in this order")
    plots = document.parent / "plots"
    lines = [f"Measured on {time.strftime('%Y-%m-%d')} by `{command}` on: {machine()}.", ""]
    for table in tables:
        title, _, rest = table.markdown().partition("\n\n")
        lines.append(title)
        for plot, svg in table.plots.items():
            plots.mkdir(exist_ok=True)
            path = plots / f"{name}-{plot}.svg"
            path.write_text(svg)
            lines += ["", f"![{table.title}]({plots.name}/{path.name})"]
        lines += ["", rest]
    head, _, tail = text.partition(begin)
    _, _, tail = tail.partition(end)
    document.write_text(f"{head}{begin}\n\n" + "\n".join(lines).rstrip() + f"\n\n{end}{tail}")
