"""Draws bar charts as SVG for documents: groups of horizontal bars with their values.

The SVG has no scripts and uses the reader's fonts; it is readable on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = ("#1f77b4", "#7fb2d9", "#e3892b", "#8c8c8c", "#b5a14a", "#8f6bb3", "#4f9d69", "#c0504d", "#5a5a5a")
WIDTH, LABEL, VALUE = 860, 210, 90
BAR, GAP, TITLE, HEAD = 15, 14, 50, 20
READ = "Longer bars are better. Each group has a scale of its own: its longest bar has the full width."


class Bars:
    """A bar chart. The groups are drawn from top to bottom; each has one bar for each series, in the order in which
    they were added."""

    def __init__(self, title: str, groups: Sequence[str]) -> None:
        self._title = title
        self._groups = list(groups)
        self._series: list[tuple[str, list[float | None]]] = []

    def add(self, name: str, values: Sequence[float | None]) -> None:
        """Adds a series: for each group a finite value of 0 or more, or None for "not measured". Raises ValueError for
        other values, and if their number differs from that of the groups."""
        if len(values) != len(self._groups):
            raise ValueError(f"{name}: expected {len(self._groups)} values, got {len(values)}")
        if any(value is not None and not 0 <= value < float("inf") for value in values):
            raise ValueError(f"{name}: expected finite values of 0 or more, got {list(values)}")
        self._series.append((name, list(values)))

    def svg(self) -> str:
        """The chart as SVG. Each group has its own scale: its longest bar has the full width."""
        height = TITLE + len(self._groups) * (HEAD + len(self._series) * BAR + GAP)
        grey = 'fill="#808080"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="sans-serif" font-size="12">',
            f"<title>{escape(self._title)}</title>",
            f'<text x="0" y="18" font-size="15" font-weight="bold" {grey}>{escape(self._title)}</text>',
        ]
        parts.append(f'<text x="0" y="36" {grey}>{READ}</text>')
        y = TITLE
        for position, group in enumerate(self._groups):
            parts.append(f'<text x="0" y="{y + 14}" font-weight="bold" {grey}>{escape(group)}</text>')
            y += HEAD
            most = max((values[position] or 0.0 for _, values in self._series), default=0.0) or 1.0
            for number, (name, values) in enumerate(self._series):
                value = values[position]
                parts.append(f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end" {grey}>{escape(name)}</text>')
                length = (WIDTH - LABEL - VALUE) * (value or 0.0) / most
                colour = COLOURS[number % len(COLOURS)]
                parts.append(f'<rect x="{LABEL}" y="{y + 1}" width="{length:.1f}" height="{BAR - 3}" fill="{colour}"/>')
                text = "not measured" if value is None else _text(value)
                parts.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + 11}" {grey}>{text}</text>')
                y += BAR
            y += GAP
        return "\n".join([*parts, "</svg>", ""])


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
