"""The results of `inferd bench` as a page: one file, with two drawings and a table, that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

Result = Mapping[str, Any]
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 70, 40
_COLOURS: Final = {"p50": "#1f77b4", "p99": "#d62728"}
_PARTS: Final = (
    ("queue", "#ff7f0e"),
    ("compute", "#2ca02c"),
    ("rest", "#9467bd"),
    ("network", "#7f7f7f"),
)
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid #ddd}svg{max-width:100%;height:auto}"
    "text{font:12px system-ui,sans-serif;fill:#444}"
)


def page(results: Sequence[Result]) -> str:
    """A whole page. All texts that come from a server are escaped."""
    first = results[0]
    name = escape(f"{first['model']}:{first['version']}")
    closed = first["mode"] == "closed"
    how = (
        "Closed loop: each caller sends its next request when the last is answered. The numbers beside points and "
        "below bars are callers."
        if closed
        else "Open loop: requests start at fixed times. The numbers beside points and below bars are requests a second."
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>inferd bench: {name}</title><style>{_STYLE}</style>"
        f"<h1>{name}</h1><p>{how} Each load took {first['seconds']:.1f} s.</p>"
        f"<h2>Latency over throughput</h2>{_curve(results)}"
        f"<h2>Where the time goes</h2>{_split(results)}{_table(results, 'callers' if closed else 'rate')}</html>\n"
    )


def _of(result: Result, part: str) -> float:
    if part == "network":
        return float(result["network_ms"] or 0.0)
    return float((result["server"] or {}).get(f"{part}_ms", 0.0))


def _load(result: Result) -> str:
    return f"{result['rate']:g}" if result["mode"] == "open" else str(result["concurrency"])


def _frame(inner: str, most: float, below: str) -> str:
    """Axes with four marks in milliseconds around a drawing."""
    marks = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y}" y2="{y}" stroke="#eee"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{most * i / 4:.3g} ms</text>'
        for i in range(5)
        for y in [round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - 20) * i / 4)]
    )
    caption = f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 6}" text-anchor="middle">{below}</text>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{marks}{inner}{caption}</svg>'


def _y(value: float, most: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - 20) * value / most, 1)


def _curve(results: Sequence[Result]) -> str:
    shown = [result for result in results if result["latency_ms"]]
    if not shown:
        return "<p>Nothing was answered.</p>"
    most = max(result["latency_ms"]["p99"] for result in shown) or 1.0
    fastest = max(result["requests_per_second"] for result in shown) or 1.0
    drawn = []
    for i, (mark, colour) in enumerate(_COLOURS.items()):
        points = [
            (
                round(_LEFT + (_WIDTH - _LEFT - 40) * result["requests_per_second"] / fastest, 1),
                _y(result["latency_ms"][mark], most),
                _load(result),
            )
            for result in shown
        ]
        line = " ".join(f"{x},{y}" for x, y, _ in points)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        drawn += [
            f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{mark}, {load}</title></circle>'
            + (f'<text x="{x + 6}" y="{y - 6}">{load}</text>' if mark == "p99" else "")
            for x, y, load in points
        ]
        drawn.append(f'<text x="{_LEFT + 10 + 50 * i}" y="14" style="fill:{colour}">{mark}</text>')
    return _frame("".join(drawn), most, f"requests a second, up to {fastest:.0f}")


def _split(results: Sequence[Result]) -> str:
    if not any(result["server"] for result in results):
        return "<p>The server does not tell (ModelStatistics is not answered).</p>"
    most = max(sum(_of(result, part) for part, _ in _PARTS) for result in results) or 1.0
    step = (_WIDTH - _LEFT - 10) / len(results)
    drawn = []
    for i, result in enumerate(results):
        below, x = 0.0, round(_LEFT + step * (i + 0.2), 1)
        for part, colour in _PARTS:
            value = _of(result, part)
            top, height = _y(below + value, most), round(_y(below, most) - _y(below + value, most), 1)
            drawn.append(
                f'<rect x="{x}" y="{top}" width="{round(step * 0.6, 1)}" height="{height}" fill="{colour}">'
                f"<title>{part}: {value:.3f} ms</title></rect>"
            )
            below += value
        drawn.append(f'<text x="{x + step * 0.3}" y="{_HEIGHT - 24}" text-anchor="middle">{_load(result)}</text>')
    drawn += [
        f'<text x="{_LEFT + 10 + 80 * i}" y="14" style="fill:{colour}">{part}</text>'
        for i, (part, colour) in enumerate(_PARTS)
    ]
    return _frame("".join(drawn), most, "mean of a request, by load")


def _table(results: Sequence[Result], load: str) -> str:
    heads = (load, "requests/s", "failed", "p50 ms", "p99 ms", *(f"{part} ms" for part, _ in _PARTS), "rows a run")
    rows = []
    for result in results:
        latency, server = result["latency_ms"], result["server"] or {}
        cells = [
            _load(result),
            f"{result['requests_per_second']:.1f}",
            str(result["failed"]),
            *(f"{latency[mark]:.3f}" if latency else "" for mark in ("p50", "p99")),
            *(f"{_of(result, part):.3f}" if server else "" for part, _ in _PARTS),
            f"{server['rows_per_run']:.1f}" if server.get("rows_per_run") else "",
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table>"
