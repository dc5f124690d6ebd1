"""What `inferd check` does with a repository: it opens everything that would be served and reports what it found.

Nothing is served, warmed up or left open. Every version is opened where a server would open it, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferd.backends.api import LoadError, Model, Signature
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.lifecycle.assemble import build_loader, resolver
from inferd.server.lifecycle.ensemble.definition import BACKEND, misfit, models_of, step_graph_of
from inferd.server.lifecycle.loading.class_labels import class_labels
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader, Registry
from inferd.server.lifecycle.loading.version_code import refuse_steps_of_ensemble
from inferd.server.lifecycle.loading.warmup_requests import Recorded
from inferd.server.lifecycle.operations.overrides import ModelOverrides
from inferd.server.lifecycle.reconcile.desired import desired
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.configured_models import ConfiguredModels
from inferd.server.repository.disk import ModelOnDisk, VersionOnDisk
from inferd.server.repository.source import RepositoryScanner
from inferd.server.scheduling.ensemble.step_graph import GraphStep
from inferd.server.scheduling.qualification.proof import analysed, objections, unproven
from inferd.server.scheduling.qualification.warmup import without_proof


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one repository root, model or version. A value.

    model       its name; "" for a repository root
    version     None for the model as a whole
    path        where it lies; "" for a root, whose path is in the error
    error       "" when it is in order
    signatures  of an opened version, the default one first
    batching    of an opened version: whether requests would share batches, and why; the reason why a model is not
                proven is among the notes
    """

    model: str
    version: int | None = None
    path: str = ""
    error: str = ""
    backend: str = ""
    signatures: tuple[Signature, ...] = ()
    notes: tuple[str, ...] = ()
    batching: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


def inspect_repository(config: ServerConfig, registry: Registry, recorded: Recorded | None = None) -> list[Finding]:
    """Findings for every root with a problem, every model and every version that its policy wants, by name and version.

    That nothing would be served is a problem, too. A version that is still being written is looked at as it is.
    `recorded` reads recorded warm-up requests. Never raises for what it finds.
    """
    findings = list(_findings(config, registry, recorded))
    if all(finding.ok for finding in findings) and not any(finding.version is not None for finding in findings):
        places = [
            *config.repository.roots,
            *(str(model.base_path) for model in ConfiguredModels.of(config).current.values()),
        ]
        where = f"{', '.join(places)} holds no model" if places else "no model repository is configured"
        findings.append(Finding("", error=f"nothing would be served: {where}; expected <model>/<version>/<artefact>"))
    return findings


def _findings(config: ServerConfig, registry: Registry, recorded: Recorded | None) -> Iterator[Finding]:
    repository = config.repository.model_copy(update={"settle": 0.0})
    configured = ConfiguredModels.of(config)
    listing = RepositoryScanner(
        repository, resolver(config, configured), named=configured, artefacts=registry.artefact_names
    ).scan()
    for error in listing.errors:
        if error in (model.problem for model in listing.models.values()):
            continue  # the error of a configured model, reported with it
        yield Finding("", error=error)
    loader = build_loader(config, registry, recorded=recorded)
    opened: dict[str, list[Finding]] = {}
    for model in listing.models.values():
        yield Finding(model.name, path=str(model.directory), error=model.problem, notes=model.notes)
        if model.config is None or not model.config.ensemble:
            found = opened[model.name] = list(_versions(model, loader))
            yield from found
    yield from _ensembles(listing.models, opened)


def _ensembles(models: Mapping[str, ModelOnDisk], opened: dict[str, list[Finding]]) -> Iterator[Finding]:
    """Findings for ensembles. One is looked at when all models in it have been, ensembles in it included."""
    left = {name: model for name, model in models.items() if model.config is not None and model.config.ensemble}
    while left:
        free = [name for name, model in left.items() if not set(_parts(model)) & set(left)]
        if not free:
            for name, model in left.items():
                held = ", ".join(part for part in _parts(model) if part in left)
                error = f"ensembles hold each other in a circle: {name} needs {held}"
                yield Finding(name, path=str(model.directory), error=error)
            return
        for name in free:
            found = opened[name] = list(_ensemble(left.pop(name), opened))
            yield from found


def _parts(model: ModelOnDisk) -> tuple[str, ...]:
    return models_of(model.config) if model.config is not None else ()


def _ensemble(model: ModelOnDisk, opened: Mapping[str, list[Finding]]) -> Iterator[Finding]:
    yield from _unready(model)
    assert model.config is not None
    there = [version.number for version in model.versions if version.ready]
    wanted = desired(model.config, ModelOverrides(), there, (), served_by_default=True).wanted
    for version in model.versions:
        if version.number not in wanted:
            continue
        where = str(version.path)
        try:
            refuse_steps_of_ensemble(version.path)
            signature, wiring = step_graph_of(model.config)
            found = {(s.model, s.version): _signature(s, opened) for s in wiring.stages}
            problem = misfit(signature, wiring, found)
            if problem:
                raise LoadError(problem)
        except LoadError as error:
            yield Finding(model.name, version.number, where, error=str(error))
            continue
        steps = f"steps: {', '.join(stage.model for stage in wiring.stages)}"
        unused = (f"nobody uses {', '.join(map(repr, wiring.unused))}",) if wiring.unused else ()
        notes = (steps, *unused)
        yield Finding(model.name, version.number, where, "", BACKEND, (signature,), notes, "each step's own")


def _signature(stage: GraphStep, opened: Mapping[str, list[Finding]]) -> Signature:
    """The signature on which a step runs. Raises LoadError when its model would not be served."""
    if stage.model not in opened:
        raise LoadError(f"{stage.subject}: there is no such model in the repository")
    fine = {f.version: f.signatures[0] for f in opened[stage.model] if f.ok and f.version is not None and f.signatures}
    if not fine:
        raise LoadError(f"{stage.subject} would not be served")
    number = max(fine) if stage.version is None else stage.version
    if number not in fine:
        raise LoadError(f"{stage.subject} would not be served; there would be {', '.join(map(str, sorted(fine)))}")
    return fine[number]


def _unready(model: ModelOnDisk) -> Iterator[Finding]:
    for version in model.versions:
        if version.error or version.held:
            yield Finding(model.name, version.number, str(version.path), error=version.error or version.held)


def _versions(model: ModelOnDisk, loader: Loader) -> Iterator[Finding]:
    yield from _unready(model)
    if model.config is None:
        return
    there = [version.number for version in model.versions if version.ready]
    labels = frozenset(model.config.labels.values())
    for number in sorted(labels - frozenset(there)):
        names = ", ".join(sorted(label for label, version in model.config.labels.items() if version == number))
        yield Finding(model.name, number, error=f"label {names} points to version {number}, which is not there")
    opened: dict[int, bool] = {}  # by version: whether it would be served
    while True:
        # As in a server, an older version stands in for one that fails.
        failed = [number for number, fine in opened.items() if not fine]
        wanted = desired(model.config, ModelOverrides(), there, failed, served_by_default=True).wanted - opened.keys()
        if not wanted:
            return
        for version in model.versions:
            if version.number in wanted:
                finding = _open(model, version, loader)
                opened[version.number] = finding.ok
                yield finding


def _batching(opened: Model, config: ModelConfig) -> tuple[str, list[str]]:
    """The verdict on batching, and notes: why signatures would be unbatched where no setting says so, and what the
    analysis says against a declaration."""
    stateful = opened.traits.stateful if config.stateful is None else config.stateful
    most = opened.traits.max_batch
    limit = config.batching.max_batch_size if most is None else min(config.batching.max_batch_size, most)
    verdicts, notes = {}, []
    for signature in opened.signatures:
        settled = without_proof(signature, config.batching, limit, stateful=stateful)
        finding = analysed(opened, signature, config.batching, stateful=stateful)
        where = f"signature {signature.name}: " if len(opened.signatures) > 1 else ""
        if settled is not None and not settled.limit:
            verdicts[signature.name] = f"unbatched: {settled.reason}"
        elif settled is not None:
            verdicts[signature.name] = f"up to {limit} rows, declared"
        else:
            proven = finding is not None and finding.proven
            verdicts[signature.name] = f"up to {limit} rows, proven" if proven else "unbatched: not proven"
        if finding is None or finding.proven:
            continue
        if config.batching.mode == "auto":
            notes.append(f"{where}unbatched: {unproven(finding)}")
        elif said := objections(finding, ""):
            notes.append(f"{where}batched because that is declared, but {said}")
    if len(set(verdicts.values())) == 1:
        return next(iter(verdicts.values())), notes
    return "; ".join(f"{name}: {text}" for name, text in verdicts.items()), notes


def _open(model: ModelOnDisk, version: VersionOnDisk, loader: Loader) -> Finding:
    assert model.config is not None
    request = LoadRequest(ServableId(model.name, version.number), 0, version, model.config)
    where = str(version.path)
    try:
        with loader.placed(request) as (opened, backend):
            replayed = len(loader.warmup(request, opened))
            class_labels(model.config, model.directory, version.rule)
            batching, remarks = _batching(opened, model.config)
            return Finding(
                model.name,
                version.number,
                where,
                backend=backend.name,
                signatures=tuple(opened.signatures),
                notes=(
                    *opened.traits.notes,
                    *((f"{replayed} warm-up requests",) if replayed else ()),
                    *remarks,
                ),
                batching=batching,
            )
    except LoadError as error:
        return Finding(model.name, version.number, where, error=str(error))
