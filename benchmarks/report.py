"""The result of a measurement: a table, printed as Markdown and saved as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Table:
    """The result of one measurement: a title, the names of the columns, the rows.

    how      how it was measured
    rounds   the values of the single rounds, for the JSON
    plots    SVG by name
    """

    title: str
    columns: Sequence[str]
    rows: list[list[Any]] = field(default_factory=list)
    how: str = ""
    rounds: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table as Markdown."""
        return f"## {self.title}\n\n{self.rows_as_markdown()}\n{self.how}\n"

    def rows_as_markdown(self) -> str:
        """The columns and rows as Markdown, without title and method."""
        lines = ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(text_of(value) for value in row) + " |" for row in self.rows]
        return "\n".join([*lines, ""])


def text_of(value: Any) -> str:
    """A cell of a table: three significant digits below 100, whole numbers with separators above."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def machine() -> str:
    """A line that describes the machine: processor, cores, memory, kernel."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, {platform.release()}"


def save(tables: Sequence[Table], path: Path) -> None:
    """Writes the tables as JSON, with the date and the machine."""
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "tables": [asdict(table) for table in tables],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
