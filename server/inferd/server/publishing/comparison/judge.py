"""What the gate of a model does not let through. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.server.config.gate_schema import Gate
from inferd.server.config.units import show_share, show_size
from inferd.server.publishing.comparison.measures import Figures, rows_for
from inferd.server.publishing.comparison.task import Comparison


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the gate does not let a version through. `key`: the key of `gate:` that says so; `text`: with both
    numbers."""

    key: str
    text: str


def metric_of(gate: Gate, found: Figures) -> str:
    """The metric that decides."""
    if gate.metric != "auto":
        return gate.metric
    return "accuracy" if found.accuracy is not None else "agreement"


def judge(gate: Gate, compared: Comparison) -> tuple[Objection, ...]:
    """Empty if the second version may take the place of the first."""
    found = compared.figures
    objections: list[Objection] = []
    if found.rows < gate.min_rows:
        objections.append(Objection("min_rows", f"{found.rows} sample rows decide, {gate.min_rows} are asked for"))
    metric = metric_of(gate, found)
    objections += _by_metric(gate, metric, found)
    if found.not_finite:
        objections.append(Objection("metric", f"{found.not_finite} numbers are NaN or infinity that were none before"))
    asked = gate.min_agreement if metric not in ("cosine", "max_abs_diff") else None
    if asked is not None and metric != "agreement" and found.agreement is not None and found.agreement < asked:
        text = f"{_percent(found.agreement)} of the rows get the decision that they got before"
        objections.append(Objection("min_agreement", f"{text}, min_agreement is {show_share(asked)}"))
    for rows, (before, after) in compared.latency.items():
        if gate.max_latency is not None and after > before * gate.max_latency:
            ratio = f"{after / before:.0%}, max_latency is {show_share(gate.max_latency)}"
            what = "1 row" if rows == 1 else f"{rows} rows"
            objections.append(Objection("max_latency", f"{what} {_time(before)} -> {_time(after)}: {ratio}"))
    if gate.max_size is not None and compared.sizes[1] > gate.max_size:
        text = f"{compared.sizes[1]} bytes, max_size is {show_size(gate.max_size)}"
        objections.append(Objection("max_size", text))
    return tuple(objections)


def caution(gate: Gate, found: Figures) -> str:
    """What a small sample cannot show, "" if it is large enough."""
    if found.accuracy is None or metric_of(gate, found) != "accuracy" or found.visible_drop <= gate.max_drop:
        return ""
    return (
        f"{found.rows} rows show a drop of {_percent(found.visible_drop)} or more; "
        f"max_drop {show_share(gate.max_drop)} needs about {rows_for(gate.max_drop)}"
    )


def _by_metric(gate: Gate, metric: str, found: Figures) -> Sequence[Objection]:
    if metric == "max_abs_diff":
        if found.max_abs_diff <= gate.max_difference:
            return ()
        return (
            Objection(
                "max_difference",
                f"a number differs by {found.max_abs_diff:.4g}, max_difference is {gate.max_difference:g}",
            ),
        )
    if metric == "accuracy":
        if found.accuracy is None:
            return (Objection("metric", "accuracy needs labels: `expected` in the sample, one for each row"),)
        before, after = found.accuracy
    else:
        value = found.cosine if metric == "cosine" else found.agreement
        if value is None:
            what = "numbers" if metric == "cosine" else "labels or scores"
            return (Objection("metric", f"{metric} cannot be told: no output holds {what}"),)
        before, after = 1.0, value
    if before - after <= gate.max_drop + 1e-12:
        return ()
    drop = f"a drop of {_percent(before - after)}, max_drop is {show_share(gate.max_drop)}"
    return (Objection("max_drop", f"{metric} {before:.4f} -> {after:.4f}: {drop}"),)


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _time(milliseconds: float) -> str:
    return f"{1000 * milliseconds:.0f} us" if milliseconds < 10 else f"{milliseconds:.1f} ms"
