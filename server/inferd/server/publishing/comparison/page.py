"""A comparison as one HTML file with its plots, which needs nothing else: no script, no font, no picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from statistics import median
from typing import Final

from inferd.server.publishing.comparison.judge import Objection
from inferd.server.publishing.comparison.task import Comparison
from inferd.server.publishing.comparison.text import shown_size, shown_time, table

_WIDTH: Final = 640
_BAR: Final = 22
_COLOURS: Final = ("#5b7db1", "#d08742")
_BINS: Final = 30
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem .25rem 0; text-align: left; }
td { border-top: 1px solid #ddd; } svg { max-width: 100%; height: auto; } h2 { margin-top: 2rem; }
.good { color: #1a7f37; } .bad { color: #b42318; } .note { color: #666; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #ddd; } td { border-color: #444; } svg text { fill: #ddd; }
}
"""


def page(title: str, compared: Sequence[Comparison], objections: Sequence[Sequence[Objection] | None]) -> str:
    """The report of one or more comparisons. `objections`: of the gate for each, None where none was asked."""
    parts = [_section(one, found) for one, found in zip(compared, objections, strict=True)]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="note">Made by inferd at {made}.</p>\n{"".join(parts)}</body>\n</html>\n'
    )


def _section(compared: Comparison, objections: Sequence[Objection] | None) -> str:
    first, second = compared.names
    head, *rows = table(compared)
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    names = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    text = f"<h2>{escape(first)} and {escape(second)}</h2>\n{_verdict(objections)}"
    text += f"<table>\n<tr>{names}</tr>\n{cells}</table>\n"
    found = compared.figures
    if found.accuracy is not None:
        text += _bars("Accuracy", compared.names, found.accuracy, [f"{value:.4f}" for value in found.accuracy], 1.0)
    text += _bars("Size of the files", compared.names, compared.sizes, [shown_size(size) for size in compared.sizes])
    for count, pair in sorted(compared.latency.items()):
        what = "one row" if count == 1 else f"{count} rows"
        text += _bars(f"Median time of a run of {what}", compared.names, pair, [shown_time(value) for value in pair])
        times = compared.times.get(count)
        if times is not None and all(times):
            text += _histogram(f"Times of single runs of {what}, in turns", compared.names, times)
    if found.confusion:
        rows_text = "".join(
            f"<tr><td>{escape(a)}</td><td>{escape(b)}</td><td>{number}</td></tr>\n" for a, b, number in found.confusion
        )
        text += (
            f"<h3>Rows with another decision</h3>\n<table>\n<tr><th>{escape(first)}</th><th>{escape(second)}</th>"
            f"<th>rows</th></tr>\n{rows_text}</table>\n"
        )
    return text


def _verdict(objections: Sequence[Objection] | None) -> str:
    if objections is None:
        return ""
    if not objections:
        return '<p class="good">The gate lets it through.</p>\n'
    items = "".join(f"<li>{escape(o.key)}: {escape(o.text)}</li>" for o in objections)
    return f'<p class="bad">The gate does not let it through:</p>\n<ul class="bad">{items}</ul>\n'


def _bars(
    title: str, names: Sequence[str], values: Sequence[float], labels: Sequence[str], most: float | None = None
) -> str:
    """Bars of two values, from zero on."""
    largest = most or max(values, default=0) or 1
    height = 30 + 2 * (_BAR + 8)
    parts = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>']
    for i, (name, value, label) in enumerate(zip(names, values, labels, strict=True)):
        y = 28 + i * (_BAR + 8)
        length = max(1.0, 360 * value / largest)
        parts.append(f'<text x="0" y="{y + 16}">{escape(name[:18])}</text>')
        parts.append(f'<rect x="150" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_COLOURS[i]}"/>')
        parts.append(f'<text x="{158 + length:.1f}" y="{y + 16}">{escape(label)}</text>')
    return _svg(title, height, parts)


def _histogram(title: str, names: Sequence[str], times: Sequence[Sequence[float]]) -> str:
    """How often runs took how long. The slowest of a hundred are left out: one pause would flatten everything."""
    every = sorted(value for each in times for value in each)
    low, high = every[0], every[max(0, int(0.99 * len(every)) - 1)]
    span = (high - low) or low or 1.0
    counts = [[0] * _BINS for _ in times]
    for i, each in enumerate(times):
        for value in each:
            if value <= high:
                counts[i][min(_BINS - 1, int(_BINS * (value - low) / span))] += 1
    top = max(max(each) for each in counts) or 1
    width = _WIDTH / _BINS
    parts = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>']
    for i, each in enumerate(counts):
        bars = "".join(
            f'<rect x="{b * width:.1f}" y="{130 - 100 * number / top:.1f}" width="{width - 1:.1f}" '
            f'height="{100 * number / top:.1f}"/>'
            for b, number in enumerate(each)
            if number
        )
        parts.append(f'<g fill="{_COLOURS[i]}" fill-opacity="0.6">{bars}</g>')
        parts.append(f'<text x="{160 * i}" y="166" fill="{_COLOURS[i]}">■ {escape(names[i][:18])}</text>')
        at = _WIDTH * min(1.0, (median(times[i]) - low) / span)
        parts.append(f'<line x1="{at:.1f}" y1="26" x2="{at:.1f}" y2="130" stroke="{_COLOURS[i]}" stroke-width="2"/>')
    parts.append(f'<text x="0" y="146">{shown_time(low)}</text>')
    parts.append(f'<text x="{_WIDTH}" y="146" text-anchor="end">{shown_time(high)}</text>')
    return _svg(title, 172, parts)


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<p><svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}" font-size="13">{"".join(parts)}</svg></p>\n'
    )
