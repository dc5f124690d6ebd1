"""The journey of a model into a repository.

staged in a hidden directory → copied or converted → loaded and run in a subprocess → compared with the original →
provenance written → renamed into place. Whatever fails ends the journey, and the repository is as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from inferd.backends.api import LEFT_OUT, Array
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.gated import gate_faults
from inferd.server.publishing.parity import Parity, accuracy, compare
from inferd.server.publishing.probe import ProbeReport, ProbeSettings, probe
from inferd.server.publishing.record import digest
from inferd.server.publishing.rows import read_rows
from inferd.server.publishing.sources.material import SourceMaterial, SourceOptions
from inferd.server.publishing.sources.route import prepare
from inferd.server.publishing.staging import Staging

_SHOWN_NOTES: Final = 6


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """How to publish.

    version   the version's number, None for the next one
    source    how the source is read and converted
    probe     what the version is loaded with
    check     False: it is copied without a look, which its provenance tells
    force     "": a failed check ends the publication; else the reason why not, which its provenance tells
    say       gets what is being done, line by line
    """

    version: int | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    check: bool = True
    force: str = ""
    say: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class Published:
    """place    <repository>/<model>/<version>
    report   of the check, None if there was none
    parity   the comparison with the original, None if there was no original
    notes    what the person should know
    """

    place: Path
    report: ProbeReport | None
    parity: Parity | None
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.place.name)


def publish(model: str, source: str, repository: Path, settings: PublishSettings) -> Published:
    """Publishes `source` as a new version of `model`. Raises PublishError; then the repository is as it was."""
    with Staging(repository, model, settings.version) as staging:
        try:
            material = prepare(source, staging, settings.source, settings.say)
            report, parity, notes = _checked(staging, material, settings)
            material.provenance.write(staging.version)
        except (OSError, shutil.Error) as error:
            raise PublishError(f"cannot publish {source} to {staging.place}: {_reason(error)}") from None
        place = staging.publish()
    return Published(place, report, parity, (*material.notes, *notes))


def _checked(
    staging: Staging, material: SourceMaterial, settings: PublishSettings
) -> tuple[ProbeReport | None, Parity | None, tuple[str, ...]]:
    """Loads, runs and compares; what was found goes into the provenance too."""
    made = material.provenance
    if not settings.check:
        return None, None, ("not checked (--no-check): nobody knows whether it can be served",)
    settings.say(f"checking: loads {staging.model}:{staging.number} as a server would …")
    outputs = staging.work / "outputs.npz"
    report = probe(staging, settings.probe, sample=material.sample, outputs=outputs)
    made.checked = {key: value for key, value in asdict(report).items() if key not in ("signatures", "notes")}
    faults = _faults(report, material)
    parity = None
    if report.rows and outputs.exists():
        got = dict(read_rows(outputs).inputs)
        parity, fault = _compared(material, got)
        if fault:
            faults.append(fault)
        if parity is not None:
            made.parity = parity.as_json()
            settings.say(f"compared with the original: {parity}")
        _judge(material, got, made.metrics)
    if material.sample is not None:
        made.sample = {"sha256": digest(material.sample), "rows": report.rows, **material.sample_source}
    refused, gate_notes = gate_faults(staging, made, settings.source.sample, settings.probe, settings.say)
    faults += refused
    if faults and not settings.force:
        more = f" (and {len(faults) - 1} more: {'; '.join(faults[1:])})" if len(faults) > 1 else ""
        raise PublishError(f"{staging.model} is not published: {faults[0]}{more}")
    made.forced = settings.force if faults else ""
    notes = [f"published although {fault}" for fault in faults]
    notes += gate_notes
    notes += [note for note in report.notes if LEFT_OUT not in note][:_SHOWN_NOTES]
    if not report.rows:
        notes.append(f"it was loaded, but not run: it refuses made-up rows ({report.refused}); give rows with --sample")
    return report, parity, tuple(notes)


def _faults(report: ProbeReport, material: SourceMaterial) -> list[str]:
    """Why callers would get wrong answers from a version that loads."""
    faults = [note for note in report.notes if LEFT_OUT in note]
    unsteady = report.unsteady or (
        "an output" if report.stateful and "gets a different output" in report.batching else ""
    )
    if unsteady and not report.stateful_declared:
        faults.append(
            f"two runs on the same rows differ in output {unsteady}: was it exported in training mode, with dropout "
            "on? Call model.eval() before the export. If it keeps a state on purpose, declare stateful: true in "
            "model.yaml"
        )
    if material.expected is not None and not report.rows:
        faults.append(f"it does not answer the rows that the original answers: {report.refused}")
    return faults


def _compared(material: SourceMaterial, got: dict[str, Array]) -> tuple[Parity | None, str]:
    if material.expected is None:
        return None, ""
    expected = dict(read_rows(material.expected).inputs)
    pairs = material.pairs or _in_order(material, got, expected)
    parity = compare(expected, got, pairs)
    if parity.good:
        return parity, ""
    hint = "; if FP32 rounds away what decides, --dtype FP64 helps" if material.rounds else ""
    return parity, f"its answers are not those of the original: {parity}{hint}"


def _in_order(material: SourceMaterial, got: dict[str, Array], expected: dict[str, Array]) -> dict[str, str]:
    names = material.order or tuple(expected)
    if len(names) != len(got):
        raise PublishError(f"the original has outputs {', '.join(names)}, the version has {', '.join(got)}")
    return dict(zip(got, names, strict=True))


def _judge(material: SourceMaterial, got: dict[str, Array], metrics: dict[str, Any]) -> None:
    """With labels beside the sample rows: the accuracy of the version, and of the original."""
    labels = material.labels
    if labels is None:
        return
    served = accuracy(labels, got, material.classes)
    if served is not None:
        if "accuracy" in metrics:
            metrics["accuracy_of_run"] = metrics["accuracy"]
        metrics["accuracy"] = round(served[0], 6)
    if material.expected is not None:
        original = accuracy(labels, dict(read_rows(material.expected).inputs), material.classes)
        if original is not None:
            metrics["accuracy_of_original"] = round(original[0], 6)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
