"""Makes variants of a version, compares each with its parent on rows that did not calibrate it, and publishes the best
that the model's gate lets through."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from inferd.backends.files import FileRule
from inferd.server.config.gate_schema import Gate
from inferd.server.config.model_schema import ModelConfig
from inferd.server.publishing.comparison import task
from inferd.server.publishing.comparison.judge import Objection, judge, metric_of
from inferd.server.publishing.comparison.measures import as_json
from inferd.server.publishing.comparison.task import Comparison, VersionPlace
from inferd.server.publishing.comparison.versions import ModelVersions, sample_of
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.optimise.split import divided
from inferd.server.publishing.optimise.variants import AUTO, SourceArtefact, VariantKind, source_of, wanted_kinds
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.record import as_origin, digest, digests
from inferd.server.publishing.rows import EXPECTED, read_rows, write_rows
from inferd.server.publishing.staging import Staging
from inferd.server.publishing.tasks import TaskFailed, run_task
from inferd.server.repository.provenance import read_provenance

_KEY: Final = "optimised"  # in provenance.json


@dataclass(frozen=True, slots=True)
class OptimiseSettings:
    """How to optimise.

    kind         a name of `variants.KINDS`, or AUTO
    sample       rows that judge, and calibrate unless there are others; None: those of the gate
    calibration  rows that calibrate, None: some of the sample
    publish      the best variant is published
    force        "": only what the gate lets through; else the reason why it does not matter, which is recorded
    probe        what the versions are loaded with
    say          gets what is being done, line by line
    """

    kind: str = AUTO
    sample: Path | None = None
    calibration: Path | None = None
    publish: bool = False
    force: str = ""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    say: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant that was tried.

    compared    with its parent; None if it could not be made or run, and `failed` says why
    objections  of the gate
    unbatched   its parent shares batches, and it does not: why
    """

    kind: VariantKind
    compared: Comparison | None
    objections: tuple[Objection, ...] = ()
    failed: str = ""
    unbatched: str = ""
    made_with: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the gate lets it through."""
        return self.compared is not None and not self.objections


@dataclass(frozen=True, slots=True)
class Optimised:
    """attempts   in the order in which they were made
    chosen     the best, None if none passed
    place      where it was published, None if it was not
    gate       what was asked
    """

    parent: str
    gate: Gate
    attempts: tuple[Attempt, ...]
    chosen: Attempt | None
    place: Path | None


def optimise(place: ModelVersions, number: int | None, settings: OptimiseSettings) -> Optimised:
    """Optimises a version; None: the newest one that is no variant. Raises PublishError; what was not published leaves
    nothing in the repository."""
    model_settings = place.settings(settings.probe)
    gate = model_settings.gate or Gate()
    parent = place.version(number) if number is not None else _newest(place)
    made_from = _variant_of(parent)
    if made_from:
        raise PublishError(f"{place.model}:{parent.version} is made from {made_from} already: optimise that")
    source = source_of(parent.directory)
    kinds = wanted_kinds(settings.kind, source, half=_half_is_of_use(model_settings, gate))
    with Staging(place.repository, place.model) as staging:
        try:
            run = _Run(place, parent, source, staging, gate, settings)
            attempts = tuple(run.attempt(kind) for kind in kinds)
            chosen = _best(attempts, gate, forced=bool(settings.force), only=settings.kind != AUTO)
            published = run.publish(chosen) if chosen is not None and settings.publish else None
        except (OSError, shutil.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise PublishError(f"cannot optimise {place.model}:{parent.version}: {reason}") from None
    return Optimised(f"{place.model}:{parent.version}", gate, attempts, chosen, published)


class _Run:
    """The variants of one version, built one after the other in one hidden directory."""

    def __init__(
        self,
        place: ModelVersions,
        parent: VersionPlace,
        source: SourceArtefact,
        staging: Staging,
        gate: Gate,
        settings: OptimiseSettings,
    ) -> None:
        self._parent = parent
        self._source = source
        self._staging = staging
        self._gate = gate
        self._settings = settings
        given = sample_of(place, gate, settings.sample, staging.work)
        sample = read_rows(given)
        own = read_rows(settings.calibration) if settings.calibration is not None else None
        calibrating, judging = divided(sample, own)
        self._calibration, self._judging = staging.work / "calibration.npz", staging.work / "judging.npz"
        write_rows(self._calibration, calibrating)
        write_rows(self._judging, judging)
        self._rows = {"calibrate": _rows_in(calibrating), "judge": _rows_in(judging)}
        self._sample = {"sha256": digest(given), "rows": sample.rows, "labels": EXPECTED in judging}

    def attempt(self, kind: VariantKind) -> Attempt:
        """Makes a variant and compares it with its parent."""
        self._settings.say(f"{kind.name}: {kind.what} …")
        directory = self._staging.work / kind.name
        try:
            made_with = self._make(kind, directory)
            compared = self._compare(kind, directory)
        except TaskFailed as error:
            missing = f"{', '.join(error.install)} is not installed" if error.install else ""
            return Attempt(kind, None, failed=missing or str(error))
        except PublishError as error:
            return Attempt(kind, None, failed=str(error))
        first, second = compared.facts
        lost = second.batching if first.batching.startswith("up to") and not second.batching.startswith("up to") else ""
        return Attempt(kind, compared, judge(self._gate, compared), unbatched=lost, made_with=made_with)

    def publish(self, chosen: Attempt) -> Path:
        """Publishes a variant, with its figures in the provenance."""
        assert chosen.compared is not None
        parent = f"{self._parent.model}:{self._parent.version}"
        before = read_provenance(self._parent.directory, FileRule(str(self._parent.directory)))
        made = as_origin(before)
        made.source = {"kind": "optimised", "uri": f"{parent} {chosen.kind.name}"}
        made.made_with |= chosen.made_with
        made.metrics = _metrics(chosen.compared)
        made.parent = {
            "model": self._parent.model,
            "version": self._parent.version,
            "files": digests(self._parent.directory),
        }
        made.sample = self._sample
        facts = chosen.compared.facts[1]
        made.checked = {"backend": facts.backend, "batching": facts.batching, "rows": chosen.compared.figures.rows}
        made.forced = self._settings.force if chosen.objections else ""
        made.more = {_KEY: self._told(chosen)}
        self._place(self._staging.work / chosen.kind.name)
        made.write(self._staging.version)
        return self._staging.publish()

    def _told(self, chosen: Attempt) -> dict[str, Any]:
        compared = chosen.compared
        assert compared is not None
        return {
            "as": chosen.kind.name,
            "split": self._rows,
            "gate": self._gate.model_dump(mode="json"),
            "metric": metric_of(self._gate, compared.figures),
            "objections": [objection.text for objection in chosen.objections],
            **as_json(compared.figures),
            "latency_ms": {str(rows): list(pair) for rows, pair in compared.latency.items()},
            "bytes": list(compared.sizes),
        }

    def _make(self, kind: VariantKind, directory: Path) -> dict[str, str]:
        """A version's directory with the variant in the place of its parent's artefact."""
        skipped = _artefact_names(self._parent.directory, self._source)
        shutil.copytree(
            self._parent.directory,
            directory,
            ignore=lambda folder, names: [
                n for n in names if n.startswith(".") or (Path(folder) == self._parent.directory and n in skipped)
            ],
        )
        request = {
            "parent": os.getpid(),
            "as": kind.name,
            "source": str(self._source.path),
            "target": str(directory / kind.target),
            "calibration": str(self._calibration) if kind.calibrated else None,
            "signature": "serving_default",
        }
        done = run_task(
            [sys.executable, "-P", "-m", kind.program],
            request,
            what=f"making {kind.name}",
            directory=self._staging.work,
            limits=self._settings.probe.limits,
            progress=self._settings.probe.progress,
            output=self._settings.probe.output,
        )
        return {str(name)[:60]: str(version)[:60] for name, version in dict(done.get("made_with", {})).items()}

    def _compare(self, kind: VariantKind, directory: Path) -> Comparison:
        self._place(directory)
        staging = self._staging
        newcomer = VersionPlace(
            staging.root, staging.model, staging.number, staging.place / str(staging.number), staging.place
        )
        names = f"{self._parent.model}:{self._parent.version}", kind.name
        try:
            return task.run(
                (self._parent, newcomer),
                names,
                self._judging,
                self._settings.probe,
                work=staging.work,
                output=self._gate.output,
            )
        finally:
            staging.version.rename(directory)
            staging.version.mkdir()

    def _place(self, directory: Path) -> None:
        self._staging.version.rmdir()
        directory.rename(self._staging.version)


def _newest(place: ModelVersions) -> VersionPlace:
    for number in reversed(place.versions()):
        found = place.version(number)
        if not _variant_of(found):
            return found
    return place.version(None)


def _variant_of(place: VersionPlace) -> str:
    """The version that a variant was made from, "" for a version that is none."""
    content = read_provenance(place.directory, FileRule(str(place.directory)))
    parent = content.get("parent")
    if _KEY not in content or not isinstance(parent, dict):
        return ""
    return f"{place.model}:{parent.get('version')}"


def _artefact_names(version: Path, source: SourceArtefact) -> set[str]:
    """The names in a version's directory that a variant takes the place of: the artefact, and its weights."""
    if source.kind == "onnx":
        if source.path.parent != version:
            return {"model.onnx"}
        weights = {path.name for path in version.iterdir() if path.suffix in (".data", ".bin", ".weights")}
        return {"model.onnx", *weights}
    return {"model.savedmodel"} if source.path != version else {
        "saved_model.pb", "variables", "assets", "fingerprint.pb", "keras_metadata.pb", "assets.extra",
    }  # fmt: skip


def _half_is_of_use(settings: ModelConfig, gate: Gate) -> bool:
    devices = settings.instances.device
    names = (devices,) if isinstance(devices, str) else devices
    return gate.max_size is not None or any(name.startswith("cuda") for name in names)


def _best(attempts: Sequence[Attempt], gate: Gate, *, forced: bool, only: bool) -> Attempt | None:
    """The fastest that passes. One that was asked for by name may be forced, and may lose its batches."""
    if only:
        (attempt,) = attempts
        return attempt if attempt.passed or (forced and attempt.compared is not None) else None
    passed = [attempt for attempt in attempts if attempt.passed and not attempt.unbatched]
    return min(passed, key=_slowness, default=None)


def _slowness(attempt: Attempt) -> float:
    assert attempt.compared is not None
    ratios = [after / before for before, after in attempt.compared.latency.values() if before]
    return max(ratios, default=1.0) if len(ratios) < 2 else sum(ratios) / len(ratios)


def _metrics(compared: Comparison) -> dict[str, float]:
    found = compared.figures
    metrics: dict[str, float] = {}
    if found.accuracy is not None:
        metrics["accuracy"] = round(found.accuracy[1], 6)
        metrics["accuracy_of_parent"] = round(found.accuracy[0], 6)
    if found.agreement is not None:
        metrics["agreement"] = round(found.agreement, 6)
    if found.cosine is not None and found.accuracy is None:
        metrics["cosine"] = round(found.cosine, 6)
    return metrics


def _rows_in(arrays: dict[str, Any]) -> int:
    return max((len(array) for name, array in arrays.items() if name != EXPECTED and array.ndim), default=0)
