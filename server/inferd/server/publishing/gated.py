"""Asks the gate of a model whether a new version may take the place of the newest one that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inferd.server.publishing.comparison import task
from inferd.server.publishing.comparison.judge import judge, metric_of
from inferd.server.publishing.comparison.measures import as_json
from inferd.server.publishing.comparison.task import VersionPlace
from inferd.server.publishing.comparison.versions import ModelVersions, sample_of
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.record import Provenance
from inferd.server.publishing.staging import Staging


def gate_faults(
    staging: Staging, made: Provenance, sample: Path | None, settings: ProbeSettings, say: Callable[[str], None]
) -> tuple[list[str], tuple[str, ...]]:
    """What the gate does not let through, and notes. What was measured goes into the provenance. `sample`: rows, None:
    those of the gate. Nothing is asked of the first version of a model, and of a model without a gate. Raises
    PublishError, ConfigError."""
    place = ModelVersions(staging.repository, staging.model)
    if not staging.place.is_dir() or not place.versions():
        return [], ()
    gate = place.settings(settings).gate
    if gate is None:
        return [], ()
    if sample is None and gate.sample is None:
        return [], ("the gate is not asked: it has no rows (--sample, or gate.sample in model.yaml)",)
    before = place.version(None)
    names = f"{staging.model}:{before.version}", f"{staging.model}:{staging.number}"
    say(f"gate: compares with {names[0]} …")
    newcomer = VersionPlace(
        staging.root, staging.model, staging.number, staging.place / str(staging.number), staging.place
    )
    rows = sample_of(place, gate, sample, staging.work)
    compared = task.run((before, newcomer), names, rows, settings, work=staging.work, output=gate.output)
    objections = judge(gate, compared)
    found = compared.figures
    if found.accuracy is not None:
        made.metrics.setdefault("accuracy", round(found.accuracy[1], 6))
    made.more["gate"] = {
        "against": names[0],
        "metric": metric_of(gate, found),
        "passed": not objections,
        **as_json(found),
        "latency_ms": {str(count): list(pair) for count, pair in compared.latency.items()},
        "bytes": list(compared.sizes),
    }
    return [f"gate: {objection.key}: {objection.text}" for objection in objections], ()
